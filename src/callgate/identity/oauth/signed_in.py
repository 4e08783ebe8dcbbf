"""The grants with which people sign in: the code, and the refresh token; other ways of signing in begin here too."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from callgate.identity.signin.person import Person

from .apps import Application, Apps
from .asked import Wanted
from .codes import Code, Codes, Replayed
from .consents import Consents
from .grant_types import REFRESH
from .grants import Grant, Rules
from .problem import TokenError, invalid_client
from .refreshing import Refreshing
from .request import Form
from .sessions import Session, Standing, Who, family_of, grant
from .surroundings import Surroundings

if TYPE_CHECKING:
    from .apps import Client
    from .issuing import Asking


class SignedIn:
    """Owns the codes, the consents and the refresh tokens. ``rules`` says what the rules of issue look at now."""

    def __init__(
        self,
        around: Surroundings,
        apps: Apps,
        standing: Standing,
        rules: Callable[[], Rules],
        clock: Callable[[], float],
    ) -> None:
        self._apps = apps
        self._rules = rules
        self._standing = standing
        self.codes = Codes(around.hold, clock)
        self.consents = Consents(around.hold, clock)
        self.refreshing = Refreshing(around.hold, standing, clock)

    async def code(self, wanted: Wanted, app: Application, person: Person) -> str:
        """A code for what this person agreed to. Raises TokenError where the person's sign-in does not count."""
        session, secret = session_of(app, person, wanted.path, wanted.scopes)
        self._standing.check(session)
        code = Code(session, wanted.target.redirect_uri, wanted.challenge, secret, 0.0, wanted.jkt)
        return await self.codes.make(code)

    async def by_code(self, asking: Asking) -> Grant:
        """The authorization code grant."""
        app = known_app(asking.client)
        try:
            code = await self.codes.redeem(app, asking.form, asking.confirmation)
        except Replayed as replayed:
            await self.refreshing.end(replayed.code.secret, replayed.code.session)
            raise
        return await self.begin(app, code.session, code.secret, asking.form, asking.confirmation)

    async def begin(
        self, app: Application, session: Session, secret: str, form: Form, confirmation: Mapping[str, str]
    ) -> Grant:
        """The first token of a family, and a refresh token where the application may have one. ``secret`` is that of
        ``session.family``. Raises TokenError.
        """
        self._standing.check(session)
        made = grant(session, app, form, self._rules())
        if self._apps.registrations is not None and app.kind == "registered":
            await self._apps.registrations.used(app)
        if REFRESH not in app.grants:
            return made
        token = await self.refreshing.begin(secret, session, app, confirmation)
        return msgspec.structs.replace(made, answer={"refresh_token": token})

    async def by_refresh(self, asking: Asking) -> Grant:
        """The refresh token grant."""
        return await self.refreshing.refresh(known_app(asking.client), asking.form, asking.confirmation, self._rules())

    async def find(self, token: str, client: Client) -> Session | None:
        """What a refresh token of this client is for, while it counts."""
        found = await self.refreshing.find(token)
        if found is None or found[1].session.client != client.name:
            return None
        try:
            self._standing.check(found[1].session)
        except TokenError:
            return None
        return found[1].session

    async def end(self, token: str, client: Client) -> Session | None:
        """End the family of a refresh token of this client; returns what it was for."""
        found = await self.refreshing.find(token)
        if found is None or found[1].session.client != client.name:
            return None
        await self.refreshing.end(found[0], found[1].session)
        return found[1].session


def session_of(app: Application, person: Person, path: str, scopes: tuple[str, ...]) -> tuple[Session, str]:
    """A new family for what a person agreed to with an application, and its secret."""
    secret = secrets.token_urlsafe(24)
    return Session(app.name, Who.of(person), path, scopes, family_of(secret)), secret


def known_app(client: Client | None) -> Application:
    """The application that asks, for grants with which people sign in. Raises TokenError."""
    if client is None:
        raise invalid_client()
    if not isinstance(client, Application):
        raise TokenError("unauthorized_client", "The client may not use this grant.")
    return client
