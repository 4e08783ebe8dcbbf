"""The pages of the device grant: a terminal asks for a code; a person types it, sees what it is for, and decides.

Nobody is asked for a decision by a link alone: whoever sends somebody a code of their own would get that person's token
(RFC 8628, section 5.4). So the code is always shown to be compared, with the application, where it asked from and when.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from callgate.audit import Record, new_id
from callgate.gateway.account import STRANGER
from callgate.gateway.html import page, text
from callgate.gateway.visitors import address_of, form_of
from callgate.identity import (
    Application,
    Form,
    Person,
    Throttle,
    TokenError,
    shown_user_code,
    sign_in_at,
    typed_user_code,
)
from callgate.types import Front, Outcome, Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.oauth import OAuthPages, Sent
    from callgate.identity import Device, Devices, TokenIssuer

log = logging.getLogger("callgate.gateway")

PAGE, ASK = "/oauth/device", "/oauth/device_authorization"
#: Codes that one address may ask for in a minute, and pages that it may open: behind a proxy it is everybody's.
CODES, VISITS = 120, 600
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Answering = Callable[["Visit"], Awaitable[Response]]


def device_routes(oauth: OAuthPages) -> list[Route]:
    pages = DevicePages(oauth)
    return [
        Route(ASK, pages.ask, methods=METHODS),
        Route(PAGE, pages.show, methods=["GET"]),
        Route(PAGE, pages.take, methods=["POST"]),
    ]


class Visit(msgspec.Struct, frozen=True):
    """A person on one of the pages. ``code`` is the user code that came with the link, if it can be one."""

    own: TokenIssuer
    devices: Devices
    person: Person
    request: Request
    code: str

    @property
    def address(self) -> str:
        return address_of(self.request)


class DevicePages:
    """The handlers, with what they need. A gateway without identity providers answers 404."""

    def __init__(self, oauth: OAuthPages) -> None:
        self.oauth = oauth
        self.house: House = oauth.house
        self.codes = Throttle(requests=CODES)
        self.visits = Throttle(requests=VISITS)
        #: Wrong codes: of one person wherever that person is, and of one address whoever signs in there.
        self.guesses = Throttle()

    # The terminal.

    async def ask(self, request: Request) -> Response:
        return await self.oauth.answer(request, self._begin)

    async def _begin(self, own: TokenIssuer, sent: Sent, form: Form) -> Response:
        """The device authorization request (RFC 8628, section 3.1)."""
        client, devices = sent.known(), own.devices
        if devices is None:
            raise TokenError("unauthorized_client", "The client may not use this grant.")
        self.codes.admit("", sent.address)
        self.oauth.check_room()
        device_code, device = await devices.begin(client, form, own.rules(), sent.address)
        who = Principal(client.subject, "", issuer=own.issuer, via="jwt")
        await self._keep(own, who, device, "oauth/device_authorization")
        where, code = self.house.public_url + PAGE, shown_user_code(device.user_code)
        answer = {
            "device_code": device_code, "user_code": code, "verification_uri": where,
            "verification_uri_complete": f"{where}?{urlencode({'user_code': code})}",
            "expires_in": int(device.expires - device.at), "interval": int(device.interval),
        }  # fmt: skip
        return JSONResponse(answer, headers=NO_STORE)

    # The person.

    async def show(self, request: Request) -> Response:
        return await self._answer(request, self._show)

    async def take(self, request: Request) -> Response:
        return await self._answer(request, self._take)

    async def _answer(self, request: Request, answer: Answering) -> Response:
        """The answer to a person who is signed in; everybody else signs in first."""
        own, people = self.house.recogniser.own, self.house.people
        code, who = typed_user_code(request.query_params.get("user_code", "")), STRANGER
        back = PAGE + (f"?{urlencode({'user_code': shown_user_code(code)})}" if code else "")
        try:
            if own is None or own.devices is None:
                return _problem("Nobody signs in here.", 404)
            self.visits.admit("", address_of(request))
            if base := people.elsewhere(request.headers.get("host", "")):
                return RedirectResponse(base + back, 303, NO_STORE)
            person = await people.person(request.cookies)
            if person is None:
                return RedirectResponse(sign_in_at(back), 303, NO_STORE)
            who = person.principal
            return await answer(Visit(own, own.devices, person, request, code))
        except TokenError as error:
            self._refused(who, error.description, error.status)
            return _problem(error.description, error.status)
        except Exception:
            log.exception("a page of the device grant could not be made")
            return _problem("Something went wrong here. The log of the gateway says what.", 500)

    async def _show(self, visit: Visit) -> Response:
        """Where a code is typed. One that came with the link is filled in, to be compared."""
        return self._entry(visit, shown_user_code(visit.code) if visit.code else "")

    async def _take(self, visit: Visit) -> Response:
        """A code that somebody typed, or the decision about it."""
        form = await form_of(visit.request)
        if not self.house.people.is_genuine(visit.request.cookies, form.get("token", "")):
            self._refused(visit.person.principal, "a form of a foreign page", 403)
            return _problem("Nothing was done: this was not your own page.", 403)
        device, app = await self._found(visit, typed_user_code(form.get("user_code", "")))
        if device is None or app is None:
            return self._entry(visit, "", "Nobody waits with this code: it is wrong, was used, or is too old.")
        decision = form.get("decision", "")
        if decision == "":
            return self._question(visit, device, app)
        if decision not in ("approve", "deny"):
            raise TokenError("invalid_request", "The form is broken.")
        return await self._decide(visit, device, app, decision == "approve")

    async def _found(self, visit: Visit, code: str) -> tuple[Device | None, Application | None]:
        """The terminal that waits with this code, and its application in good standing. Wrong codes are counted;
        raises TokenError when there were too many.
        """
        key = visit.person.key
        places = ((key, f"person {key}"), (key, visit.address))
        for place in places:
            self.guesses.admit(*place)
        device = await visit.devices.find(code) if code else None
        app = await visit.own.apps.find(device.client) if device is not None else None
        if app is not None and app.active:
            return device, app
        for place in places:
            self.guesses.failed(*place)
        self._refused(visit.person.principal, "a code that nobody waits with")
        return None, None

    async def _decide(self, visit: Visit, device: Device, app: Application, approved: bool) -> Response:
        self.oauth.check_room()
        if approved:
            decided = await visit.devices.approve(device.user_code, visit.person, app)
        else:
            decided = await visit.devices.deny(device.user_code)
        if decided is None:
            return self._entry(visit, "", "Nobody waits with this code any more.")
        await self._keep(visit.own, visit.person.principal, decided, "oauth/device", approved)
        if approved:
            return page("Go back to your terminal", "<p>It is signed in. You can close this page.</p>")
        return page("Refused", "<p>The terminal gets nothing. You can close this page.</p>")

    def _entry(self, visit: Visit, code: str, problem: str = "") -> Response:
        compare = "Is this exactly the code on your terminal?" if code else "Type the code that your terminal shows."
        body = (
            f"{_WARNING}{f'<p role=alert><strong>{text(problem)}</strong></p>' if problem else ''}"
            f'<form method="post" action="{PAGE}"><label for="code">{compare}</label>'
            f'<input id="code" class="code" name="user_code" value="{text(code)}" required maxlength="20" '
            f'autocomplete="off" autocapitalize="characters" spellcheck="false">{self._token(visit)}'
            '<button class="main">Continue</button></form>'
        )
        return page("Sign in a terminal", body, 400 if problem else 200)

    def _question(self, visit: Visit, device: Device, app: Application) -> Response:
        """What is asked for, by whom, from where and when."""
        words = visit.own.config.scopes
        since = datetime.fromtimestamp(device.at, UTC).strftime("%H:%M:%S UTC")
        told = app.title or app.name
        rows = (
            ("Application", told if app.kind == "configured" else f"{told} (so it calls itself: {app.name})"),
            ("Asked from", f"{device.address or 'an unknown address'}, {_ago(time.time() - device.at)}, at {since}"),
            ("For", visit.own.resources.uri(device.path)),
            ("As", f"{visit.person.name or visit.person.subject}, with your roles"),
        )
        listed = "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in rows)
        scopes = "".join(f"<li>{text(words.get(scope) or scope)}</li>" for scope in device.scopes)
        body = (
            f"{_WARNING}<dl><dt>Code on the terminal</dt>"
            f'<dd class="code">{text(shown_user_code(device.user_code))}</dd>{listed}</dl>'
            f"{f'<p>It may:</p><ul>{scopes}</ul>' if scopes else ''}"
            f'<form class="choices" method="post" action="{PAGE}">'
            f'<input type="hidden" name="user_code" value="{text(shown_user_code(device.user_code))}">'
            f'{self._token(visit)}<button class="main" name="decision" value="approve">Sign it in</button>'
            '<button name="decision" value="deny">No, refuse</button></form>'
        )
        return page("Sign in this terminal?", body)

    def _token(self, visit: Visit) -> str:
        token = self.house.people.form_token(visit.request.cookies)
        return f'<input type="hidden" name="token" value="{text(token)}">'

    async def _keep(
        self, own: TokenIssuer, who: Principal, device: Device, method: str, approved: bool | None = None
    ) -> None:
        told = {**device.told, "audience": own.resources.uri(device.path)}
        reason = "the person said no" if approved is False else ""
        outcome: Outcome = "denied" if approved is False else "ok"
        await self.house.journal.keep(Record(new_id(), who, Front(), method, "", "", told, outcome, reason=reason))

    def _refused(self, who: Principal, reason: str, status: int = 400) -> None:
        entry = Record(new_id(), who, Front(), "oauth/device", "", "", None, "refused", reason=reason)
        self.house.refusals.note(entry, status)


def _ago(seconds: float) -> str:
    """
    >>> _ago(59), _ago(60), _ago(150)
    ('just now', 'a minute ago', '2 minutes ago')
    """
    minutes = int(seconds // 60)
    return "just now" if minutes < 1 else "a minute ago" if minutes == 1 else f"{minutes} minutes ago"


_WARNING = (
    '<p class="warning">Only go on if you started this yourself, just now, on a terminal of yours. '
    "If somebody sent you the link or the code, they want to act as you: close this page.</p>"
)


def _problem(sentence: str, status: int) -> Response:
    return page("Nothing was signed in", f"<p>{text(sentence)}</p>", status)
