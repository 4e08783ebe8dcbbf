"""Who sits in front of a browser that opens a page of ours: a person who signed in, or the holder of a key or token.

An MCP client proves who it is with every request; a browser has to be asked. People sign in (``house.people``). Whoever
has a static key, or a token of an issuer at which nobody signs in here, puts it into a field of our own page once
(``/oauth/prove``) and gets a cookie for a while. Nothing of that goes through the MCP client (rules ELI-2, ELI-4).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from callgate.errors import Unauthenticated
from callgate.gateway.sealed import Box
from callgate.identity import Cookies, user_of
from callgate.store import secret_key
from callgate.types import Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Seconds for which a browser need not show the key again, and for which it is known as the same browser.
PROVEN, SAME = 900, 3600
MOST_BYTES = 16 * 1024


class Holder(msgspec.Struct, frozen=True):
    """Who showed a key or token in this browser (its cookie's digest), when, and until when that counts."""

    subject: str
    key: str
    issuer: str
    via: str
    browser: str
    at: float
    until: float


class Proving:
    """Says who is in front of a browser. Cookies are for this host alone. ``signs_in``: the pages of the sign-in are at
    this address too.
    """

    def __init__(self, house: House, signs_in: bool = True) -> None:
        self._house = house
        self._signs_in = signs_in
        self._box = Box(lambda: secret_key(house.loaded.data_dir, "holders"), b"holder", Holder, 4096)

    async def all(self, cookies: Mapping[str, str]) -> list[Principal]:
        """Everybody whom this browser has proved to be; where callers are anonymous, everybody is the anonymous."""
        found = []
        person = await self._house.people.person(cookies)
        if person is not None:
            found.append(person.principal)
        holder = self._holder(cookies)
        if holder is not None:
            found.append(holder)
        if self._house.recogniser.anonymous is not None:
            found.append(self._house.recogniser.anonymous)
        return found

    async def as_user(self, user: str, cookies: Mapping[str, str]) -> Principal | None:
        """The principal with this key, if this browser is proved to be its."""
        return next((who for who in await self.all(cookies) if who.key == user), None)

    @property
    def has_sign_in(self) -> bool:
        """Whether anybody can sign in here."""
        return self._signs_in and bool(self._house.people.providers)

    def signs_in(self, user: str) -> bool:
        """Whether this user proves with a sign-in who it is, and not with a key or token."""
        return self.has_sign_in and not self._house.recogniser.holds_key(user)

    async def prove(self, credential: str, cookies: Mapping[str, str]) -> str:
        """The ``Set-Cookie`` for whoever has this key or token. Raises Unauthenticated."""
        text = credential.strip()
        if not text or len(text) > MOST_BYTES or not text.isascii() or not text.isprintable():
            raise Unauthenticated("This is no key and no token.")
        who = await self._house.recogniser.recognise(b"Bearer " + text.encode())
        if who.chain or who.asserted:  # whoever got it through a sign-in can sign in here as well
            raise Unauthenticated("This token is an agent's or an application's, not its user's.")
        providers = self._house.settings.identity.providers.values()
        if self.has_sign_in and any(each.issuer == who.issuer for each in providers):
            raise Unauthenticated("Clients hold tokens of this issuer; its people sign in here.")
        now = time.time()
        until = min(now + PROVEN, who.expires)
        mine = Holder(who.subject, user_of(who), who.issuer, who.via, _digest(self.browser(cookies)), now, until)
        return self._set("callgate-holder", self._box.seal(mine), PROVEN)

    def _holder(self, cookies: Mapping[str, str]) -> Principal | None:
        holder = self._box.open(cookies.get(self._name("callgate-holder"), ""))
        if holder is None or holder.until <= time.time() or holder.browser != _digest(self.browser(cookies)):
            return None
        if holder.via == "key" and not self._house.recogniser.holds_key(holder.key):
            return None  # it was taken back
        who = Principal(holder.subject, holder.key, issuer=holder.issuer, via="key" if holder.via == "key" else "jwt")
        return None if self._house.recogniser.gone(who, holder.at) else who

    # The browser itself.

    def browser(self, cookies: Mapping[str, str]) -> str:
        """What this browser is known by; empty for a new one."""
        value = cookies.get(self._name("callgate-browser"), "")
        return value if len(value) == 43 and value.isascii() else ""

    def greet(self, cookies: Mapping[str, str]) -> tuple[str, str]:
        """What the browser is known by, now at the latest, and the ``Set-Cookie`` for it."""
        known = self.browser(cookies) or secrets.token_urlsafe(32)
        return known, self._set("callgate-browser", known, SAME)

    def token(self, browser: str, purpose: str) -> str:
        """What a form carries, so that no other page can send it from this browser."""
        return hmac.new(browser.encode(), purpose.encode(), hashlib.sha256).hexdigest()

    def is_genuine(self, cookies: Mapping[str, str], purpose: str, token: str) -> bool:
        browser = self.browser(cookies)
        return bool(browser) and hmac.compare_digest(self.token(browser, purpose).encode(), token.encode())

    # Cookies on a way.

    def put(self, name: str, value: str) -> str:
        """A ``Set-Cookie`` for one way to an issuer and back."""
        return self._set(name, value, SAME)

    def get(self, name: str, cookies: Mapping[str, str]) -> str:
        return cookies.get(self._name(name), "")

    def drop(self, name: str) -> str:
        return self._set(name, "", 0)

    @property
    def safe(self) -> bool:
        """Whether cookies stay between the browser and us."""
        return self._cookies.possible

    @property
    def _cookies(self) -> Cookies:
        return Cookies(self._house.public_url)

    def _name(self, name: str) -> str:
        return self._cookies.named(name)

    def _set(self, name: str, value: str, seconds: int) -> str:
        return self._cookies.set(self._name(name), value, seconds)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
