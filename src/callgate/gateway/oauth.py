"""The pages of discovery and of the token service on the gateway listener. Host and Origin were checked by the lane."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from callgate.audit import Record, new_id
from callgate.gateway import showing
from callgate.gateway.account import STRANGER
from callgate.gateway.challenge import WELL_KNOWN, issuers, metadata, path_of
from callgate.identity import FORM_BYTES, Form, Registered, Throttle, TokenError, named_client, read_form
from callgate.types import Front, Outcome, Principal

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk
    from callgate.identity import Issued, TokenIssuer

log = logging.getLogger("callgate.gateway")

NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
KEPT = {"cache-control": "public, max-age=300"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Answering = Callable[["TokenIssuer", Registered, Form], Awaitable[Response]]


def oauth_routes(desk: FrontDesk) -> list[Route]:
    pages = OAuthPages(desk)
    return [
        Route(WELL_KNOWN, pages.resource, methods=["GET"]),
        Route(WELL_KNOWN + "/{path:path}", pages.resource, methods=["GET"]),
        Route("/.well-known/oauth-authorization-server", pages.server, methods=["GET"]),
        Route("/.well-known/openid-configuration", pages.server, methods=["GET"]),
        Route("/oauth/jwks", pages.jwks, methods=["GET"]),
        Route("/oauth/token", pages.token, methods=METHODS),
        Route("/oauth/introspect", pages.introspect, methods=METHODS),
        Route("/oauth/revoke", pages.revoke, methods=METHODS),
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
        return _public(request, metadata(self.house, "/" if door is None else path_of(door)))

    async def server(self, request: Request) -> Response:
        own = self.house.recogniser.own
        return _nothing() if own is None else _public(request, own.metadata())

    async def jwks(self, request: Request) -> Response:
        own = self.house.recogniser.own
        document = await own.jwks() if own is not None else await showing.jwks(self.house)
        return _nothing() if document is None else _public(request, document)

    async def token(self, request: Request) -> Response:
        return await self._answer(request, self._issue)

    async def introspect(self, request: Request) -> Response:
        return await self._answer(request, self._introspect)

    async def revoke(self, request: Request) -> Response:
        return await self._answer(request, self._revoke)

    async def _answer(self, request: Request, answer: Answering) -> Response:
        """The answer to a client that proved who it is, whatever becomes of its request."""
        own = self.house.recogniser.own
        if own is None:
            return _nothing()
        if request.method != "POST":
            return _refusal(TokenError("invalid_request", "Use POST.", 405), {"allow": "POST"})
        asked = Asked(request)
        try:
            form = await asked.form()
            asked.client = named_client(form, asked.authorization)
            self.throttle.admit(asked.client, asked.address)
            asked.agent = await own.authenticate(form, asked.authorization)
            return await answer(own, asked.agent, form)
        except TokenError as error:
            if error.error == "invalid_client":
                self.throttle.failed(asked.client, asked.address)
            self.house.note_refused(asked.record(own, error), error.status)
            return _refusal(error, {"www-authenticate": 'Basic realm="callgate"'} if error.status == 401 else {})
        except Exception:
            log.exception("a request of the token service could not be answered")
            return _refusal(TokenError("server_error", "Internal error.", 500))

    async def _issue(self, own: TokenIssuer, agent: Registered, form: Form) -> Response:
        if self.house.strict and self.house.journal.full:
            raise TokenError("temporarily_unavailable", "The audit log cannot take more records.", 503)
        issued = await own.issue(agent, form)
        await self._keep(_record(own.principal(issued.claims), "ok", _told(issued)))
        return JSONResponse(issued.answer, headers=NO_STORE)

    async def _introspect(self, own: TokenIssuer, agent: Registered, form: Form) -> Response:
        return JSONResponse(await own.introspect(agent, form), headers=NO_STORE)

    async def _revoke(self, own: TokenIssuer, agent: Registered, form: Form) -> Response:
        ended = await own.revoke(agent, form)
        if ended is not None:
            told = {"client": agent.name, "audience": ended.audience, "id_sha256": _digest(ended.claims["jti"])}
            await self._keep(_record(ended, "ok", told, method="oauth/revoke"))
        return Response(status_code=200, headers=NO_STORE)

    async def _keep(self, entry: Record) -> None:
        """Write the record; with ``audit.durability: strict`` it is on disk before the answer leaves."""
        if self.house.strict:
            await self.house.journal.put_durable(entry)
        else:
            self.house.journal.put(entry)


class Asked:
    """One request to the token service: what it says of its sender, and who that turned out to be."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.authorization: bytes | None = dict(request.scope["headers"]).get(b"authorization")
        self.address = request.client.host if request.client is not None else ""
        self.client = ""
        self.agent: Registered | None = None

    async def form(self) -> Form:
        if self._request.scope["query_string"]:
            # What stands in a URL is in everybody's logs (rule RS-9).
            raise TokenError("invalid_request", "Parameters belong into the body.")
        body = bytearray()
        try:
            async for piece in self._request.stream():
                body += piece
                if len(body) > FORM_BYTES:
                    break  # read_form says so
        except ClientDisconnect:
            raise TokenError("invalid_request", "The body never came.") from None
        return read_form(self._request.headers.get("content-type", ""), bytes(body))

    def record(self, own: TokenIssuer, error: TokenError) -> Record:
        agent = self.agent
        who = STRANGER if agent is None else Principal(agent.subject, "", issuer=own.issuer, via="jwt")
        path = self._request.url.path.rpartition("/")[2]
        return _record(who, "refused", None, f"{error.error}: {error.description}", f"oauth/{path}")


def _told(issued: Issued) -> dict[str, Any]:
    """What the record says of a token; never the token, nor its id in clear."""
    claims, grant = issued.claims, issued.grant
    told = {"client": grant.client, "audience": claims["aud"], "scope": claims["scope"], "expires": claims["exp"]}
    parent = grant.parents[-1] if grant.parents else ""
    more = {"id_sha256": _digest(claims["jti"]), "parent_sha256": _digest(parent), "consent": grant.consent}
    return told | {name: value for name, value in more.items() if value}


def _digest(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest() if id else ""


def _record(
    who: Principal, outcome: Outcome, told: dict[str, Any] | None, reason: str = "", method: str = "oauth/token"
) -> Record:
    return Record(new_id(), who, Front(), method, "", "", told, outcome, reason=reason)


def _public(request: Request, document: dict[str, Any]) -> Response:
    headers = {**KEPT, "vary": "origin"}
    if origin := request.headers.get("origin"):  # the lane refused every other Origin already
        headers["access-control-allow-origin"] = origin
    return JSONResponse(document, headers=headers)


def _refusal(error: TokenError, more: dict[str, str] | None = None) -> Response:
    said = {"error": error.error, "error_description": error.description}
    return JSONResponse(said, status_code=error.status, headers={**NO_STORE, **(more or {})})


def _nothing() -> Response:
    return JSONResponse({"error": "not_found", "error_description": "There is nothing here."}, status_code=404)
