"""The pages on which a user connects to a server: agree, go to the server's issuer, come back; and take it back.

Only the user whose call asked for it may agree (rule ELI-2): each page knows from the browser itself who sits there
(``proving.py``). What the issuer gives stays here; the MCP client never sees any of it (rule ELI-1).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from callgate.errors import CallgateError, Denied, NotFound, ProtocolError, Unauthenticated, UpstreamError
from callgate.gateway import connecting_pages as shown
from callgate.gateway.account import STRANGER
from callgate.gateway.consent import PAGE
from callgate.gateway.consenting import who_is
from callgate.gateway.proving import Proving
from callgate.gateway.visitors import address_of, form_of, query_of
from callgate.identity import Form, Pending, Throttle, TokenError, sign_in_at
from callgate.types import Front, Outcome, Principal

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk

log = logging.getLogger("callgate.gateway")

CALLBACK, LIST, PROVE = "/oauth/connect/callback", "/oauth/connections", "/oauth/prove"
DOCUMENT = "/oauth/client.json"
#: Characters of an issuer's answer, and of a ticket.
MOST_QUERY, MOST_TICKET = 16 * 1024, 256
#: Requests of one address in a minute.
VISITS = 600
NO_STORE = {"cache-control": "no-store", "referrer-policy": "same-origin"}
Answering = Callable[[Request], Awaitable[Response]]


def connecting_routes(desk: FrontDesk, signs_in: bool = True) -> list[Route]:
    """``signs_in``: the pages of the sign-in are at this listener too."""
    pages = ConnectingPages(desk, signs_in)
    return [
        Route(CALLBACK, pages.page(pages.back), methods=["GET"]),
        Route(PAGE + "{ticket}", pages.page(pages.ask), methods=["GET"]),
        Route(PAGE + "{ticket}", pages.page(pages.go), methods=["POST"]),
        Route(LIST, pages.page(pages.list), methods=["GET"]),
        Route(LIST, pages.page(pages.change), methods=["POST"]),
        Route(PROVE, pages.page(pages.prove), methods=["POST"]),
        Route(DOCUMENT, pages.document, methods=["GET"]),
    ]


class ConnectingPages:
    """The handlers, with what they need. A gateway without servers that want their users' agreement answers 404."""

    def __init__(self, desk: FrontDesk, signs_in: bool = True) -> None:
        self.house = desk.house
        self.proving = Proving(desk.house, signs_in)
        self.throttle = Throttle(requests=VISITS)

    def page(self, answer: Answering) -> Answering:
        """The answer to a browser, as a page also where there is a problem."""

        async def answered(request: Request) -> Response:
            try:
                if not self.servers:
                    raise NotFound("There is nothing to connect to here.")
                if not self.proving.safe:
                    raise Denied("Nobody can connect to anything here: the gateway needs an https address.")
                self.throttle.admit("", address_of(request))
                return await answer(request)
            except TokenError as error:
                return shown.problem(error.description, error.status)
            except CallgateError as error:
                told = f"{error.message} {error.hint}".strip()
                if isinstance(error, UpstreamError):  # nothing that the user can mend
                    log.warning("somebody could not connect to a server: %s", told)
                return shown.problem(told, _status(error))
            except Exception:
                log.exception("a page could not be made")
                return shown.problem("Something went wrong here. The log of the gateway says what.", 500)

        return answered

    @property
    def servers(self) -> list[str]:
        """The servers to which people connect."""
        configured = self.house.settings.servers
        return [name for name, each in configured.items() if each.auth.type == "oauth" and not each.disabled]

    # Agreeing.

    async def ask(self, request: Request) -> Response:
        """What will happen, for the user whose ticket it is."""
        ticket, pending = await self._pending(request)
        who = await self._user(request, pending)
        if isinstance(who, Response):
            return who
        browser, cookie = self.proving.greet(request.cookies)
        asked_by = [await self._called(each) for each in pending.asked_by]
        response = shown.question(pending, who, ticket, self.proving.token(browser, ticket), asked_by)
        response.headers.append("set-cookie", cookie)
        return response

    async def go(self, request: Request) -> Response:
        """The user goes on to the issuer, or does not."""
        ticket, pending = await self._pending(request)
        form = await _form(request)
        self._check_form(request, ticket, form)
        who = await self._user(request, pending)
        if isinstance(who, Response):
            return who
        if "go" not in form:
            await self._keep(who, pending.server, "denied", "the user did not agree")
            return shown.declined(pending.server)
        if form.get("agreed") != shown.agreement(pending):
            return await self.ask(request)  # the server says something else since the page was read
        started = await self.house.connections.begin(ticket, pending.user, pending)
        response = RedirectResponse(started.url, 303, NO_STORE)
        state = parse_qs(urlsplit(started.url).query).get("state", [""])[-1]
        response.headers.append("set-cookie", self.proving.put(_way(state), f"{ticket}~{started.cookie}"))
        return response

    async def back(self, request: Request) -> Response:
        """The issuer's answer, in the browser that went there."""
        query = _query(request)
        name = _way(query.get("state", ""))
        ticket, _, cookie = self.proving.get(name, request.cookies).partition("~")
        try:
            finished = await self.house.connections.finish(query, cookie)
        except CallgateError as error:
            await self._failed(request, error)
            raise
        who = await self.proving.as_user(finished.user, request.cookies) or Principal("?", finished.user)
        await self._keep(who, finished.server, "ok", "the user agreed")
        self.house.consents.given(finished.server, finished.user, ticket)
        response = shown.connected(finished.server)
        response.headers.append("set-cookie", self.proving.drop(name))
        return response

    async def _called(self, name: str) -> str:
        """What people are told of an application or agent through which a call came."""
        own = self.house.recogniser.own
        app = await own.apps.find(name) if own is not None else None
        return who_is(app) if app is not None else name

    async def _pending(self, request: Request) -> tuple[str, Pending]:
        ticket = request.path_params["ticket"]
        if len(ticket) > MOST_TICKET:
            raise NotFound("This page does not exist.")
        return ticket, await self.house.connections.describe(ticket)

    async def _user(self, request: Request, pending: Pending) -> Principal | Response:
        """The user whose ticket it is; or the page on which somebody proves to be it, or learns to be somebody else."""
        who = await self.proving.as_user(pending.user, request.cookies)
        if who is not None:
            return who
        others = [each for each in await self.proving.all(request.cookies) if each.via != "anonymous"]
        back = request.url.path
        if not others and self.proving.signs_in(pending.user):
            return RedirectResponse(sign_in_at(back), 303, NO_STORE)
        if not others:
            return self._proof(request, back)
        somebody = others[0]
        entry = self.house.consents.record(somebody, pending.server, "refused", "the page of another user was opened")
        self.house.refusals.note(entry, 403)
        return shown.not_yours(somebody, signed_in=self.proving.signs_in(somebody.key))

    async def _failed(self, request: Request, error: CallgateError) -> None:
        """Record that a way to an issuer led to nothing, as far as this browser is known; what the issuer said of it
        stands nowhere.
        """
        known = [*await self.proving.all(request.cookies), STRANGER][0]
        server = getattr(error, "server", "")  # where the way was one of ours, whoever came back on it
        entry = self.house.consents.record(known, server, "refused", error.message)
        self.house.refusals.note(entry, _status(error))

    # What somebody is connected to.

    async def list(self, request: Request) -> Response:
        """The servers to which somebody is connected, or could be."""
        found = await self.proving.all(request.cookies)
        if not found:
            if self.proving.has_sign_in and "key" not in request.query_params:
                return RedirectResponse(sign_in_at(LIST), 303, NO_STORE)
            return self._proof(request, LIST)
        who = found[0]
        browser, cookie = self.proving.greet(request.cookies)
        has = {each.server: each for each in await self.house.connections.connections(who.key)}
        free = [name for name in self.servers if name not in has and self.house.personal.may(who, name, Front())]
        response = shown.connections(who, list(has.values()), free, self.proving.token(browser, who.key))
        response.headers.append("set-cookie", cookie)
        return response

    async def change(self, request: Request) -> Response:
        """Connect to a server, or be connected no more."""
        form = await _form(request)
        found = await self.proving.all(request.cookies)
        if not found:
            raise Denied("Nobody is signed in here any more.")
        who = found[0]
        self._check_form(request, who.key, form)
        if (server := form.get("disconnect", "")) and await self.house.connections.disconnect(who.key, server):
            await self._keep(who, server, "ok", "the user disconnected")
            self.house.personal.connected(server, who.key)
        elif (server := form.get("connect", "")) and server in self.servers:
            if not self.house.personal.may(who, server, Front()):
                raise NotFound("There is no such server.")
            ticket = await self.house.connections.invite(server, who)
            return RedirectResponse(PAGE + ticket, 303, NO_STORE)
        return RedirectResponse(LIST, 303, NO_STORE)

    # Proving.

    async def prove(self, request: Request) -> Response:
        """Somebody shows the key or token that its client uses."""
        form = await _form(request)
        back = form.get("back", "")
        self._check_form(request, "prove", form)
        if not (back == LIST or back.startswith(PAGE)) or "//" in back or "\\" in back:
            raise NotFound("The link that led here is broken.")
        address = address_of(request)
        self.throttle.admit("prove", address)
        try:
            cookie = await self.proving.prove(form.get("key", ""), request.cookies)
        except Unauthenticated:
            self.throttle.failed("prove", address)
            entry = self.house.consents.record(STRANGER, "", "refused", "a key or token on our page does not hold")
            self.house.refusals.note(entry, 401)
            return self._proof(request, back, "This key or token does not hold.")
        response = RedirectResponse(quote(back), 303, NO_STORE)
        response.headers.append("set-cookie", cookie)
        return response

    def _proof(self, request: Request, back: str, wrong: str = "") -> Response:
        browser, cookie = self.proving.greet(request.cookies)
        response = shown.proof(back, self.proving.token(browser, "prove"), wrong)
        response.headers.append("set-cookie", cookie)
        return response

    async def document(self, request: Request) -> Response:
        """Who callgate is as a client of issuers that read such documents."""
        if not self.servers:
            return JSONResponse({"error": "not_found"}, status_code=404)
        return JSONResponse(self.house.connections.document(), headers={"cache-control": "public, max-age=300"})

    def _check_form(self, request: Request, purpose: str, form: Mapping[str, str]) -> None:
        if not self.proving.is_genuine(request.cookies, purpose, form.get("token", "")):
            raise Denied("Nothing was done: this did not come from our own page. Go back, load it anew and try again.")

    async def _keep(self, who: Principal, server: str, outcome: Outcome, reason: str) -> None:
        """Write the record; with ``audit.durability: strict`` it is on disk before the answer leaves."""
        entry = self.house.consents.record(who, server, outcome, reason)
        await self.house.journal.keep(entry)


def _way(state: str) -> str:
    """The name of the cookie of one way to an issuer: there may be several at a time."""
    return f"callgate-connect-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _status(error: CallgateError) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, Denied):
        return 403
    return error.http_status if isinstance(error, ProtocolError) else 400 if error.exit_code == 2 else 502


def _query(request: Request) -> dict[str, str]:
    try:
        return query_of(request, MOST_QUERY)
    except ValueError:
        raise ProtocolError("The link that led here is broken.") from None


async def _form(request: Request) -> Form:
    try:
        return await form_of(request)
    except TokenError:
        raise ProtocolError("The form is broken.") from None
