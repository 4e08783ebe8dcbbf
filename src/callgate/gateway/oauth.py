"""The pages of discovery and of the token service on the gateway listener. Host and Origin were checked by the lane."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from callgate.audit import Record, new_id
from callgate.gateway import showing
from callgate.gateway.account import STRANGER
from callgate.gateway.authorizing import authorize_routes
from callgate.gateway.challenge import WELL_KNOWN, issuers, metadata, path_of
from callgate.gateway.devices import device_routes
from callgate.gateway.origins import for_pages
from callgate.gateway.shown import shown_by
from callgate.gateway.signing_in import sign_in_routes
from callgate.gateway.visitors import address_of, form_of
from callgate.identity import Client, Form, Proved, Throttle, TokenError, named_client
from callgate.types import Front, Outcome, Principal

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk
    from callgate.identity import Issued, TokenIssuer

log = logging.getLogger("callgate.gateway")

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
KEPT = {"cache-control": "public, max-age=300"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
#: No refusals: a terminal is to ask again (RFC 8628, section 3.5).
WAITING = ("authorization_pending", "slow_down")
Answering = Callable[["TokenIssuer", "Sent", Form], Awaitable[Response]]


def oauth_routes(desk: FrontDesk) -> list[Route]:
    pages = OAuthPages(desk)
    read, asked = ["GET", "OPTIONS"], METHODS
    shared = (
        (WELL_KNOWN, pages.resource, read), (WELL_KNOWN + "/{path:path}", pages.resource, read),
        ("/.well-known/oauth-authorization-server", pages.server, read),
        ("/.well-known/openid-configuration", pages.server, read), ("/oauth/jwks", pages.jwks, read),
        ("/oauth/token", pages.token, asked), ("/oauth/introspect", pages.introspect, asked),
        ("/oauth/revoke", pages.revoke, asked),
    )  # fmt: skip
    return [
        *(Route(path, for_pages(handler), methods=methods) for path, handler, methods in shared),
        *sign_in_routes(desk),
        *authorize_routes(desk),
        *device_routes(pages),
    ]


class OAuthPages:
    """The handlers, with what they need. A gateway without a token service answers 404."""

    def __init__(self, desk: FrontDesk) -> None:
        self.desk = desk
        self.house = desk.house
        self.throttle = Throttle()

    async def resource(self, request: Request) -> Response:
        """The protected-resource metadata of one endpoint, or at the root that of the gateway (RFC 9728)."""
        path = request.scope["raw_path"].partition(b"?")[0].removeprefix(WELL_KNOWN.encode())
        door = self.desk.door(path) if path not in (b"", b"/") else None
        if not issuers(self.house) or (door is None and path not in (b"", b"/")):
            return _nothing()
        return _public(metadata(self.house, "/" if door is None else path_of(door)))

    async def server(self, request: Request) -> Response:
        own = self.house.recogniser.own
        return _nothing() if own is None else _public(own.metadata())

    async def jwks(self, request: Request) -> Response:
        own = self.house.recogniser.own
        document = await own.jwks() if own is not None else await showing.jwks(self.house)
        return _nothing() if document is None else _public(document)

    async def token(self, request: Request) -> Response:
        return await self.answer(request, self._issue)

    async def introspect(self, request: Request) -> Response:
        return await self.answer(request, self._introspect)

    async def revoke(self, request: Request) -> Response:
        return await self.answer(request, self._revoke)

    async def answer(self, request: Request, answer: Answering) -> Response:
        """The answer to a client that proved who it is, whatever becomes of its request."""
        own = self.house.recogniser.own
        if own is None:
            return _nothing()
        if request.method != "POST":
            return _refusal(TokenError("invalid_request", "Use POST.", 405), {"allow": "POST"})
        asked = Sent(request)
        try:
            form = await asked.form()
            asked.client = named_client(form, asked.authorization)
            self.throttle.admit(asked.client, asked.address)
            asked.proved = await own.proving.prove(shown_by(request, self.house))
            if answer != self._issue or not own.speaks_for_itself(form, asked.authorization):
                asked.agent = await own.authenticate(form, asked.authorization, asked.proved.certificate)
            return await answer(own, asked, form)
        except TokenError as error:
            if error.error == "invalid_client" or (asked.agent is None and error.error == "invalid_grant"):
                self.throttle.failed(asked.client, asked.address)
            if error.error not in WAITING:
                self.house.refusals.note(asked.record(own, error), error.status)
            basic = {"www-authenticate": 'Basic realm="callgate"'} if error.status == 401 else {}
            return _refusal(error, {**basic, **error.headers})
        except Exception:
            log.exception("a request of the token service could not be answered")
            return _refusal(TokenError("server_error", "Internal error.", 500))

    async def _issue(self, own: TokenIssuer, sent: Sent, form: Form) -> Response:
        self.check_room()
        issued = await own.issue(sent.agent, form, sent.proved.confirmation)
        await own.proving.use(sent.proved)
        await self.house.journal.keep(_record(own.principal(issued.claims), "ok", _told(issued)))
        return JSONResponse(issued.answer, headers={**NO_STORE, **own.proving.headers()})

    async def _introspect(self, own: TokenIssuer, sent: Sent, form: Form) -> Response:
        return JSONResponse(await own.introspect(sent.known(), form), headers=NO_STORE)

    async def _revoke(self, own: TokenIssuer, sent: Sent, form: Form) -> Response:
        agent = sent.known()
        ended = await own.revoke(agent, form)
        if ended is not None:
            told = {"client": agent.name, "audience": ended.audience, "id_sha256": _digest(ended.id)}
            who = ended.principal or Principal(ended.subject, "", issuer=ended.issuer, via="jwt")
            await self.house.journal.keep(_record(who, "ok", told, method="oauth/revoke"))
        return Response(status_code=200, headers=NO_STORE)

    def check_room(self) -> None:
        """Raises TokenError while nobody could write down what is about to be given."""
        if self.house.strict and self.house.journal.full:
            raise TokenError("temporarily_unavailable", "The audit log cannot take more records.", 503)


class Sent:
    """One request to the token service: what it says of its sender, and who that turned out to be."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.authorization: bytes | None = dict(request.scope["headers"]).get(b"authorization")
        self.address = address_of(request)
        self.client = ""
        self.agent: Client | None = None
        self.proved = Proved()

    def known(self) -> Client:
        """Who proved to be the sender. Raises TokenError."""
        if self.agent is None:
            raise TokenError("invalid_client", "The client could not be authenticated.", 401)
        return self.agent

    async def form(self) -> Form:
        if self._request.scope["query_string"]:
            # What stands in a URL is in everybody's logs (rule RS-9).
            raise TokenError("invalid_request", "Parameters belong into the body.")
        return await form_of(self._request)

    def record(self, own: TokenIssuer, error: TokenError) -> Record:
        agent = self.agent
        who = STRANGER if agent is None else Principal(agent.subject, "", issuer=own.issuer, via="jwt")
        path = self._request.url.path.rpartition("/")[2]
        return _record(who, "refused", dict(error.told) or None, f"{error.error}: {error.description}", f"oauth/{path}")


def _told(issued: Issued) -> dict[str, Any]:
    """What the record says of a token; never the token, nor its id in clear."""
    claims, grant = issued.claims, issued.grant
    told = {"client": grant.client, "audience": claims["aud"], "scope": claims["scope"], "expires": claims["exp"]}
    parent = grant.parents[-1] if grant.parents else ""
    more = {
        "id_sha256": _digest(claims["jti"]), "parent_sha256": _digest(parent), "consent": grant.consent,
        "bound_to": " ".join(claims.get("cnf", ())), "evidence": grant.evidence,
        "grant": issued.kind.rpartition(":")[2],
    }  # fmt: skip
    return told | {name: value for name, value in more.items() if value}


def _digest(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest() if id else ""


def _record(
    who: Principal, outcome: Outcome, told: dict[str, Any] | None, reason: str = "", method: str = "oauth/token"
) -> Record:
    return Record(new_id(), who, Front(), method, "", "", told, outcome, reason=reason)


def _public(document: dict[str, Any]) -> Response:
    return JSONResponse(document, headers={**KEPT, "vary": "origin"})


def _refusal(error: TokenError, more: dict[str, str] | None = None) -> Response:
    said = {"error": error.error, "error_description": error.description}
    return JSONResponse(said, status_code=error.status, headers={**NO_STORE, **(more or {})})


def _nothing() -> Response:
    return JSONResponse({"error": "not_found", "error_description": "There is nothing here."}, status_code=404)
