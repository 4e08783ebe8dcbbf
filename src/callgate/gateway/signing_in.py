"""The pages of the sign-in: which provider, the way back from it, signed in, signed out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from callgate.audit import Record, new_id
from callgate.gateway.account import STRANGER
from callgate.gateway.html import page, text
from callgate.gateway.visitors import address_of, form_of, query_of
from callgate.identity import (
    Departure,
    Form,
    Person,
    SignInError,
    Throttle,
    TokenError,
    checked_back,
)
from callgate.types import Front, Outcome, Principal

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk
    from callgate.identity import IdentityProvider

log = logging.getLogger("callgate.gateway")

SIGN_IN, SIGN_OUT, SIGNED_OUT = "/oauth/sign-in", "/oauth/sign-out", "/oauth/signed-out"
#: Characters of one query: the request of an app comes along in ``back``.
MOST_QUERY = 32 * 1024
#: Visits of one address in a minute: behind a proxy that is everybody.
VISITS = 600
NO_STORE = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
Answering = Callable[[Request], Awaitable[Response]]


def sign_in_routes(desk: FrontDesk) -> list[Route]:
    pages = SignInPages(desk)
    return [
        Route(SIGN_IN, pages.enter, methods=["GET"]),
        Route("/oauth/callback", pages.callback, methods=["GET"]),
        Route(SIGN_OUT, pages.leave, methods=["POST"]),
        Route(SIGNED_OUT, pages.left, methods=["GET"]),
    ]


class SignInPages:
    """The handlers, with what they need. A gateway without identity providers answers 404."""

    def __init__(self, desk: FrontDesk) -> None:
        self.house = desk.house
        self.throttle = Throttle(requests=VISITS)

    async def enter(self, request: Request) -> Response:
        return await self._answer(request, self._enter)

    async def callback(self, request: Request) -> Response:
        return await self._answer(request, self._arrive)

    async def leave(self, request: Request) -> Response:
        return await self._answer(request, self._leave)

    async def left(self, request: Request) -> Response:
        return await self._answer(request, self._left)

    @property
    def _providers(self) -> Mapping[str, IdentityProvider]:
        return self.house.people.providers

    async def _answer(self, request: Request, answer: Answering) -> Response:
        """The answer to a browser, as a page also where there is a problem."""
        try:
            if not self._providers:
                raise SignInError("Nobody signs in here.", "no providers", 404)
            self.throttle.admit("", address_of(request))
            return await answer(request)
        except TokenError as error:
            return self._refuse(request, SignInError(error.description, "", error.status))
        except SignInError as error:
            return self._refuse(request, error)
        except Exception:
            log.exception("a page of the sign-in could not be made")
            return _problem(SignInError("Something went wrong here. The log of the gateway says what.", "", 500))

    def _refuse(self, request: Request, error: SignInError) -> Response:
        if error.status != 404:
            where = f" at `{error.provider}`" if error.provider else ""
            hint = f" ({error.hint})" if error.hint else ""
            log.log(
                logging.WARNING if error.status >= 500 else logging.INFO,
                "no sign-in%s: %s%s",
                where,
                error.reason,
                hint,
            )
            method = "oauth/sign-out" if request.url.path == SIGN_OUT else "oauth/sign-in"
            self.house.refusals.note(_record(STRANGER, "refused", None, error.reason, method), error.status)
        return _problem(error)

    async def _enter(self, request: Request) -> Response:
        """Where to sign in; who is signed in already and wants to go on goes on."""
        asked, people = _query(request), self.house.people
        if base := people.elsewhere(request.headers.get("host", "")):
            return _redirect(f"{base}{SIGN_IN}?{urlencode(asked)}" if asked else base + SIGN_IN)
        back, name, prompt = asked.get("back", ""), asked.get("provider", ""), asked.get("prompt", "")
        if prompt not in ("", "select_account"):
            raise SignInError("The link that led here is broken.", "an unknown prompt")
        back = checked_back(back) if back else ""
        person = None if name or prompt else await people.person(request.cookies)
        if person is not None:
            return _redirect(back) if back else self._account(person, request)
        if not name and len(self._providers) > 1:
            return self._choice(back, prompt)
        self._check_room()
        return _leaving(await people.begin(name or next(iter(self._providers)), back, request.cookies, prompt))

    async def _arrive(self, request: Request) -> Response:
        """A browser comes back from a provider."""
        self._check_room()
        departure = await self.house.people.arrive(_query(request), request.cookies)
        assert departure.person is not None
        await self._keep(departure.person, "oauth/sign-in")
        return _leaving(departure)

    async def _leave(self, request: Request) -> Response:
        people, form = self.house.people, await _form(request)
        if not people.form_token(request.cookies):
            return _redirect(SIGNED_OUT)  # nobody is signed in, so there is nothing that a foreign page could do
        if not people.is_genuine(request.cookies, form.get("token", "")):
            raise SignInError("You are still signed in: this was not your own page.", "sign-out by a foreign page", 403)
        departure = await people.leave(request.cookies)
        if departure.person is not None:
            await self._keep(departure.person, "oauth/sign-out")
        response = self._signed_out(departure)
        return _with_cookies(response, departure)

    async def _left(self, request: Request) -> Response:
        return self._signed_out(Departure(""))

    def _signed_out(self, departure: Departure) -> Response:
        body = "<p>This browser is signed out of callgate.</p>"
        links = f'<a class="button" href="{SIGN_IN}">Sign in again</a>'
        provider = self._providers.get(departure.person.provider) if departure.person is not None else None
        if provider is not None and departure.url:
            body += f'<p class="soft">You may still be signed in at {text(provider.title)}.</p>'
            links = f'<a class="button main" href="{text(departure.url)}">Sign out there too</a>{links}'
        return page("Signed out", f'{body}<div class="choices">{links}</div>')

    def _choice(self, back: str, prompt: str) -> Response:
        more = {name: value for name, value in (("back", back), ("prompt", prompt)) if value}
        found = [(each.title, urlencode({"provider": name, **more})) for name, each in self._providers.items()]
        links = "".join(f'<a class="button" href="{SIGN_IN}?{text(at)}">{text(title)}</a>' for title, at in found)
        return page("Sign in", f'<p>Where is your account?</p><div class="choices tall">{links}</div>')

    def _account(self, person: Person, request: Request) -> Response:
        provider = self._providers[person.provider]
        token = self.house.people.form_token(request.cookies)
        rows = (
            ("Signed in at", provider.title), ("As", person.subject),
            ("Roles", ", ".join(person.roles) or "none"), ("Groups", ", ".join(person.groups)),
        )  # fmt: skip
        listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows if value)
        body = (
            f'<dl>{listed}</dl><form class="choices" method="post" action="{SIGN_OUT}">'
            f'<input type="hidden" name="token" value="{text(token)}"><button class="main">Sign out</button>'
            f'<a class="button" href="{SIGN_IN}?prompt=select_account">Use another account</a></form>'
        )
        return page(person.name, body)

    def _check_room(self) -> None:
        if self.house.strict and self.house.journal.full:
            raise SignInError("The gateway cannot sign anybody in right now.", "the audit log is full", 503)

    async def _keep(self, person: Person, method: str) -> None:
        """Write the record; with ``audit.durability: strict`` it is on disk before the answer leaves."""
        entry = _record(person.principal, "ok", {"provider": person.provider}, "", method)
        await self.house.journal.keep(entry)


def _query(request: Request) -> dict[str, str]:
    try:
        return query_of(request, MOST_QUERY, strict=True)
    except ValueError:
        raise SignInError("The link that led here is broken.", "a malformed query") from None


async def _form(request: Request) -> Form:
    try:
        return await form_of(request)
    except TokenError:
        raise SignInError("The form is broken.", "a malformed form") from None


def _leaving(departure: Departure) -> Response:
    return _with_cookies(_redirect(departure.url), departure)


def _with_cookies(response: Response, departure: Departure) -> Response:
    for cookie in departure.cookies:
        response.headers.append("set-cookie", cookie)
    return response


def _redirect(url: str) -> Response:
    """303: whatever led here, the browser goes on with a GET, and does not tell where it was."""
    return RedirectResponse(url, 303, NO_STORE)


def _problem(error: SignInError) -> Response:
    asked = {"back": error.back} if error.back else {}
    if error.another:  # the provider remembers this one, and would send the browser back with it at once
        asked |= {"provider": error.provider, "prompt": "select_account"}
    again = f"{SIGN_IN}?{urlencode(asked, quote_via=quote, safe='')}" if asked else SIGN_IN
    words = "Use another account" if error.another else "Start again"
    link = "" if error.status in (404, 500) else f'<a class="button main" href="{text(again)}">{words}</a>'
    return page("Not signed in", f"<p>{text(error.message)}</p>{link}", error.status)


def _record(who: Principal, outcome: Outcome, told: dict[str, Any] | None, reason: str, method: str) -> Record:
    return Record(new_id(), who, Front(), method, "", "", told, outcome, reason=reason)
