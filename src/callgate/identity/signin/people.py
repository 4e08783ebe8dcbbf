"""Who signed in with a browser, for every page that wants to know; and the way in and out."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from callgate.config import Identity, OAuth
from callgate.egress import is_loopback
from callgate.identity.oauth.surroundings import Surroundings

from .attempts import PATIENCE, Attempt, Attempts
from .back import checked_back
from .browsers import Browsers, Session, form_token
from .cookies import Cookies
from .kept_tokens import Kept, KeptTokens
from .person import Person, ProviderTokens
from .problem import SignInError, expired

if TYPE_CHECKING:
    from .endpoints import Sign
    from .provider import IdentityProvider

SIGN_IN = "/oauth/sign-in"


class Departure(msgspec.Struct, frozen=True):
    """A browser goes to ``url``, with ``Set-Cookie`` headers. ``person`` is who signed in or out, if anybody did."""

    url: str
    cookies: tuple[str, ...] = ()
    person: Person | None = None


class People:
    """The people of the configured identity providers; without providers nobody is ever signed in.

    ``sign`` signs claims with callgate's own key, ``keep`` says whether what providers issue is kept because a server
    wants it.
    """

    def __init__(
        self,
        identity: Identity,
        around: Surroundings,
        sign: Sign,
        keep: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._around = around
        self._sign = sign
        self._keep = keep
        self._clock = clock
        self._attempts = Attempts(around.hold("sign-in", Attempt), clock)
        self._browsers = Browsers(around.hold("browser", Session), clock)
        self._kept = KeptTokens(around.hold("idp-tokens", Kept), clock)
        self._providers: dict[str, IdentityProvider] = {}
        self._oauth = OAuth()
        self._revoked: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.configure(identity)

    @property
    def providers(self) -> Mapping[str, IdentityProvider]:
        """Where people can sign in, by the names of the configuration."""
        return self._providers

    # For the pages.

    async def person(self, cookies: Mapping[str, str]) -> Person | None:
        """The person who is signed in with this browser."""
        id = self._session_id(cookies) if self._providers else ""
        session = await self._browsers.find(id)
        if session is None or session.person.at <= self._revoked.get(session.person.key, float("-inf")):
            return None
        provider = self._providers.get(session.person.provider)
        if provider is None or provider.fingerprint != session.person.fingerprint:
            await self._browsers.end(id)  # who came in by other settings than those of now comes in anew
            return None
        return session.person

    def form_token(self, cookies: Mapping[str, str]) -> str:
        """What a form on a page for the signed-in person carries, so that no other site can send it; empty where
        nobody is signed in.
        """
        return form_token(self._session_id(cookies))

    def is_genuine(self, cookies: Mapping[str, str], token: str) -> bool:
        """Whether a form that came with this browser carries its own ``form_token``."""
        own = self.form_token(cookies)
        return bool(own) and hmac.compare_digest(own.encode(), token.encode())

    # The way in and out.

    async def begin(self, name: str, back: str, cookies: Mapping[str, str], prompt: str = "") -> Departure:
        """Send the browser to a provider. Raises SignInError."""
        provider = self._providers.get(name)
        if provider is None:
            raise SignInError("There is no such identity provider.", "no such provider", 404)
        jar = self._cookies
        jar.check()
        back = checked_back(back) if back else ""
        # Several tabs may be on their way at once: they share the cookie.
        browser = jar.read(jar.attempt, cookies) or secrets.token_urlsafe(32)
        state, attempt = await self._attempts.begin(name, provider.config.issuer, provider.fingerprint, browser, back)
        try:
            url = await provider.departure(state, attempt, prompt)
        except SignInError as error:
            error.provider, error.back = name, back
            raise
        return Departure(url, (jar.set(jar.attempt, browser, PATIENCE),))

    async def arrive(self, query: Mapping[str, str], cookies: Mapping[str, str]) -> Departure:
        """A browser comes back from a provider and is signed in. Raises SignInError."""
        jar = self._cookies
        jar.check()
        attempt = await self._attempts.finish(query.get("state", ""), jar.read(jar.attempt, cookies))
        try:
            provider = self._providers.get(attempt.provider)
            if provider is None or provider.fingerprint != attempt.fingerprint:
                raise expired()
            person, tokens = await provider.arrival(query, attempt)
            life = self._oauth.session_ttl
            session = Session(person, tokens.id_token)
            id, person = await self._browsers.open(session, life, self._session_id(cookies))
            if self._keep():
                await self._kept.keep(person.key, tokens, provider.fingerprint, self._oauth.refresh_ttl)
        except SignInError as error:
            error.provider, error.back = attempt.provider, attempt.back
            raise
        return Departure(attempt.back or SIGN_IN, (jar.set(jar.session, id, life),), person)

    async def leave(self, cookies: Mapping[str, str]) -> Departure:
        """Sign this browser out; ``url`` is where the person can sign out of the provider too, if anywhere."""
        id, person, url = self._session_id(cookies), await self.person(cookies), ""
        session = await self._browsers.find(id)
        await self._browsers.end(id)
        if person is not None and session is not None:
            url = await self._providers[person.provider].sign_out_url(session.id_token)
        return Departure(url, (self._cookies.clear(self._cookies.session),), person)

    def elsewhere(self, host: str) -> str:
        """Where a browser should have come that came under another loopback name, whose cookies are not ours; empty
        if it is right here. ``host`` is the value of its ``Host`` header.
        """
        at = urlsplit(self._around.base())
        came = urlsplit(f"//{host}")
        loopback = is_loopback(at.hostname or "") and is_loopback(came.hostname or "")
        return self._around.base() if loopback and came.hostname != at.hostname else ""

    # What providers issued.

    async def provider_tokens(self, person: str) -> ProviderTokens | None:
        """What the provider issued for the person with this key; ``None`` where nothing is kept, or its grant has
        ended. Refreshed before it expires, where the provider gave a refresh token (some give no new ID token then:
        look at ``expires``). Raises UpstreamError while the provider does not answer.
        """
        kept = await self._kept.find(person) if self._keep() and person not in self._revoked else None
        if kept is None:
            return None
        provider = self._providers.get(kept.tokens.provider)
        if provider is None or provider.fingerprint != kept.fingerprint:
            await self._kept.forget(person)
            return None
        if self._kept.fresh(kept):
            return kept.tokens
        return await self._kept.refreshed(person, provider.refreshed)

    # When things change.

    def forget(self, person: str) -> None:
        """The person with this key was revoked: signed out of all browsers, and nothing of the provider's is kept."""
        self._revoked[person] = self._clock()
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # called in a thread
            asyncio.run(self._drop(person))
        else:
            self._own(self._drop(person))

    def configure(self, identity: Identity) -> None:
        """Take over other providers: who signed in at one that is gone, or means something else now, is signed out."""
        self._oauth = identity.oauth or OAuth()
        before, self._providers = self._providers, {}
        for name, config in identity.providers.items():
            from .provider import IdentityProvider  # brings cryptography, which nobody without providers waits for

            old = before.get(name)
            keep = old is not None and old.config == config
            self._providers[name] = (
                before.pop(name) if keep else IdentityProvider(name, config, self._around, self._sign, self._clock)
            )
        for gone in before.values():
            self._own(gone.aclose())

    async def aclose(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._kept.aclose()
        await asyncio.gather(*(each.aclose() for each in self._providers.values()))

    @property
    def _cookies(self) -> Cookies:
        return Cookies(self._around.base())

    def _session_id(self, cookies: Mapping[str, str]) -> str:
        jar = self._cookies
        return jar.read(jar.session, cookies)

    async def _drop(self, person: str) -> None:
        await self._browsers.end_all(person)
        await self._kept.forget(person)
        self._revoked.pop(person, None)  # until then it stood for what was still on disk

    def _own(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="people")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def sign_in_at(back: str) -> str:
    """Where to send a browser that is not signed in, so that it comes back to ``back``: a path on this host.

    >>> sign_in_at("/oauth/authorize?state=a b")
    '/oauth/sign-in?back=%2Foauth%2Fauthorize%3Fstate%3Da%20b'
    """
    return f"{SIGN_IN}?back={quote(back, safe='')}"
