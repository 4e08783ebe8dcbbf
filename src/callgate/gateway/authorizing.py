"""Where people come with an application's request: `/oauth/authorize`, the answer to the consent page, and where
applications register themselves. Host and Origin were checked by the lane.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from callgate.audit import Record, new_id
from callgate.gateway.account import STRANGER
from callgate.gateway.consenting import CONSENT, SIGN_IN, Asking, consent_page
from callgate.gateway.html import page, sentence
from callgate.gateway.origins import for_pages
from callgate.gateway.visitors import address_of, body_of, form_of
from callgate.identity import (
    AUTHORIZE,
    FORM_BYTES,
    Application,
    Declined,
    Misled,
    Pairs,
    Person,
    Throttle,
    TokenError,
    Unfit,
    Wanted,
    read_authorization,
    read_registration,
    redirects,
    registered_answer,
    request_again,
)
from callgate.types import Front, Outcome, Principal

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk
    from callgate.identity import SignedIn, TokenIssuer

log = logging.getLogger("callgate.gateway")

#: Visits of one address in a minute: behind a proxy that is everybody.
VISITS = 600
MOST_FIELDS = 64
#: Prompts that want a new sign-in.
ANEW = frozenset({"login", "select_account"})
METHOD, REGISTER = "oauth/authorize", "oauth/register"
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache", "referrer-policy": "no-referrer"}
Answering = Callable[[Request, "TokenIssuer", "SignedIn"], Awaitable[Response]]


def authorize_routes(desk: FrontDesk) -> list[Route]:
    pages = AuthorizePages(desk)
    return [
        Route(AUTHORIZE, pages.authorize, methods=["GET", "POST"]),
        Route(CONSENT, pages.consent, methods=["POST"]),
        Route("/oauth/register", for_pages(pages.register), methods=["POST", "OPTIONS"]),
    ]


class AuthorizePages:
    """The handlers, with what they need. Where nobody can sign in they answer 404."""

    def __init__(self, desk: FrontDesk) -> None:
        self.house = desk.house
        self.throttle = Throttle(requests=VISITS)

    async def authorize(self, request: Request) -> Response:
        return await self._answer(request, self._authorize)

    async def consent(self, request: Request) -> Response:
        return await self._answer(request, self._decide)

    @property
    def _own(self) -> TokenIssuer | None:
        own = self.house.recogniser.own
        return own if own is not None and own.people is not None else None

    async def _answer(self, request: Request, answer: Answering) -> Response:
        """A page, or a redirect to the application, whatever becomes of the request."""
        own = self._own
        signed_in = own.people if own is not None else None
        try:
            if own is None or signed_in is None:
                return _problem("Nobody signs in here.", "", 404)
            self.throttle.admit("", address_of(request))
            if self.house.strict and self.house.journal.full:
                return _problem("The gateway cannot let anybody in right now.", "Try again in a moment.", 503)
            return await answer(request, own, signed_in)
        except Misled as error:
            self.house.refusals.note(_record(STRANGER, "refused", None, error.why), 400)
            return _problem(error.why, error.hint)
        except Declined as error:
            assert own is not None
            told = {"client": error.target.client}
            self.house.refusals.note(_record(STRANGER, "refused", told, f"{error.error}: {error.why}"), 400)
            url = error.target.answer(own.issuer, error=error.error, error_description=error.why)
            return RedirectResponse(url, 303, NO_STORE)
        except TokenError as error:
            self.house.refusals.note(_record(STRANGER, "refused", None, error.description), error.status)
            return _problem(error.description, "", error.status)
        except Exception:
            log.exception("an authorization request could not be answered")
            return _problem("Something went wrong here.", "The log of the gateway says what.", 500)

    async def _authorize(self, request: Request, own: TokenIssuer, signed_in: SignedIn) -> Response:
        people = self.house.people
        pairs = await _pairs(request)
        if base := people.elsewhere(request.headers.get("host", "")):
            return RedirectResponse(base + request_again(pairs), 303, NO_STORE)
        wanted, app = await read_authorization(pairs, own.clients, own.rules())
        person = await people.person(request.cookies)
        if person is None or wanted.prompts & ANEW or person.at < wanted.since:
            return _sign_in(wanted, pairs, person)
        remembered = app.trusted or await signed_in.consents.covers(wanted, app, person)
        if remembered and "consent" not in wanted.prompts:
            return await self._approve(own, wanted, app, person, "trusted" if app.trusted else "before")
        if "none" in wanted.prompts:
            raise Declined(wanted.target, "consent_required", "The person has to agree first.")
        ticket = await signed_in.consents.ask(wanted, person)
        await self.house.journal.keep(_record(person.principal, "ok", _told(own, wanted), "asked the person"))
        token, endpoint = people.form_token(request.cookies), own.resources.uri(wanted.path)
        back = request_again(pairs)
        return consent_page(Asking(wanted, app, person, endpoint, own.config.scopes, back, ticket, token))

    async def _decide(self, request: Request, own: TokenIssuer, signed_in: SignedIn) -> Response:
        """The answer to a consent page: by the person that it was shown to, in the same browser, once."""
        people = self.house.people
        form = await form_of(request)
        person = await people.person(request.cookies)
        if person is None or not people.is_genuine(request.cookies, form.get("token", "")):
            raise Misled("Nobody is signed in with this browser any more.", "Go back to the application and try again.")
        wanted = await signed_in.consents.answered(form.get("ticket", ""), person)
        if wanted is None:
            raise Misled("This page was answered before, or is too old.", "Go back to the application and try again.")
        client = await own.clients.find(wanted.target.client)
        if not isinstance(client, Application) or not client.active:
            raise Misled("The application is not known here any more.")
        if not redirects.registered(wanted.target.redirect_uri, client.redirect_uris):
            raise Misled("The application has another address now.", "Go back to it and try again.")
        if form.get("decision") != "allow":
            await self.house.journal.keep(_record(person.principal, "denied", _told(own, wanted), "the person said no"))
            url = wanted.target.answer(own.issuer, error="access_denied", error_description="The person said no.")
            return RedirectResponse(url, 303, NO_STORE)
        await signed_in.consents.remember(wanted, client, person)
        return await self._approve(own, wanted, client, person, "now")

    async def _approve(
        self, own: TokenIssuer, wanted: Wanted, app: Application, person: Person, consent: str
    ) -> Response:
        assert own.people is not None
        try:
            code = await own.people.code(wanted, app, person)
        except TokenError as error:
            raise Declined(wanted.target, "access_denied", error.description) from None
        said = f"the application was let in ({consent})"
        await self.house.journal.keep(_record(person.principal, "ok", {"consent": consent, **_told(own, wanted)}, said))
        return RedirectResponse(wanted.target.answer(own.issuer, code=code), 303, NO_STORE)

    async def register(self, request: Request) -> Response:
        own = self._own
        registrations = own.apps.registrations if own is not None else None
        if registrations is None:
            return _json({"error": "not_found", "error_description": "There is nothing here."}, 404)
        if request.method != "POST":
            return _json({"error": "invalid_request", "error_description": "Use POST."}, 405)
        try:
            self.throttle.admit("", address_of(request))
            said = read_registration(request.headers.get("content-type", ""), await body_of(request))
            app, secret = await registrations.register(said, address_of(request))
        except Unfit as error:
            self.house.refusals.note(_record(STRANGER, "refused", None, error.why, REGISTER), 400)
            return _json({"error": error.error, "error_description": error.why}, 400)
        except TokenError as error:
            self.house.refusals.note(_record(STRANGER, "refused", None, error.description, REGISTER), error.status)
            return _json({"error": error.error, "error_description": error.description}, error.status)
        except Exception:
            log.exception("a registration could not be answered")
            return _json({"error": "server_error", "error_description": "Internal error."}, 500)
        told = {"client": app.name, "hosts": sorted({redirects.shown(uri) for uri in app.redirect_uris})}
        await self.house.journal.keep(_record(STRANGER, "ok", told, "", REGISTER))
        return _json(registered_answer(app, secret, time.time()), 201)


def _sign_in(wanted: Wanted, pairs: Pairs, person: Person | None) -> Response:
    """To the sign-in, and back to this request. Who is signed in already gets there only to be asked again."""
    if "none" in wanted.prompts:
        raise Declined(wanted.target, "login_required", "Nobody is signed in.")
    back = request_again(pairs, time.time() if wanted.prompts & ANEW else None)
    prompt = "prompt=select_account&" if person is not None else ""
    return RedirectResponse(f"{SIGN_IN}?{prompt}back={quote(back, safe='')}", 303, NO_STORE)


async def _pairs(request: Request) -> Pairs:
    """The parameters in their order, of a query or of a form. Raises Misled for what is neither."""
    broken = Misled("The request cannot be read.")
    raw: bytes = request.scope["query_string"]
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if raw or kind != "application/x-www-form-urlencoded":
            raise broken
        raw = await body_of(request)
    if len(raw) > FORM_BYTES:
        raise Misled("The request is too large.")
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=MOST_FIELDS,
            encoding="utf-8", errors="strict",
        )  # fmt: skip
    except ValueError:
        raise broken from None


def _told(own: TokenIssuer, wanted: Wanted) -> dict[str, Any]:
    return {
        "client": wanted.target.client,
        "audience": own.resources.uri(wanted.path),
        "scope": " ".join(wanted.scopes),
        "answer_to": redirects.shown(wanted.target.redirect_uri),
    }


def _record(
    who: Principal, outcome: Outcome, told: dict[str, Any] | None, reason: str = "", method: str = METHOD
) -> Record:
    return Record(new_id(), who, Front(), method, "", "", told, outcome, reason=reason)


def _json(said: dict[str, Any], status: int) -> Response:
    return JSONResponse(said, status_code=status, headers=NO_STORE)


def _problem(why: str, hint: str = "", status: int = 400) -> Response:
    more = f'<p class="soft">{sentence(hint)}</p>' if hint else ""
    return page("This does not work", f"<p>{sentence(why)}</p>{more}", status)
