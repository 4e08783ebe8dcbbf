"""What a person's sign-in with an application gives: a family of tokens, of which one revocation ends all.

Every access token of the family names it among its ``parents``, so that it ends with the family, and with it
everything that was exchanged from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from callgate.config import Identity, OAuth
from callgate.identity.signin.fingerprint import fingerprint
from callgate.identity.signin.person import Person

from .apps import Application
from .grants import Grant, Rules
from .marks import Revocations
from .problem import invalid_grant, invalid_scope, invalid_target
from .request import Form, scopes_of
from .resources import listed, within

#: Says something to the token service and nothing about a call; there is no need to ask for it (rule RS-6).
OFFLINE = "offline_access"


class Who(msgspec.Struct, frozen=True):
    """The person of a family, as of the sign-in: all that tokens say, and the settings by which it was decided."""

    issuer: str
    subject: str
    provider: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    at: float
    fingerprint: str = ""

    @classmethod
    def of(cls, person: Person) -> Who:
        who = person
        return cls(who.issuer, who.subject, who.provider, who.roles, who.groups, who.at, who.fingerprint)

    @property
    def key(self) -> str:
        return Person(self.issuer, self.subject, self.provider).key

    @property
    def qualified(self) -> str:
        return f"{self.issuer}#{self.subject}"


class Session(msgspec.Struct, frozen=True):
    """A person through an application: for which endpoint (its path), with which scopes. ``family`` is the id by which
    it is revoked.
    """

    client: str
    who: Who
    path: str
    scopes: tuple[str, ...]
    family: str

    @property
    def told(self) -> dict[str, str]:
        """What a record says of it."""
        return {"client": self.client, "person": self.who.qualified, "scope": " ".join(self.scopes)}


class Standing(msgspec.Struct, frozen=True):
    """What a family depends on besides itself: the providers of now, and the revocations."""

    identity: Identity
    revocations: Revocations

    @property
    def refresh_ttl(self) -> float:
        """How long a refresh token may lie unused (seconds)."""
        return (self.identity.oauth or OAuth()).refresh_ttl

    def check(self, session: Session) -> None:
        """Raises TokenError when the person's provider is gone or means something else now, or it was revoked."""
        provider = self.identity.providers.get(session.who.provider)
        if provider is None or fingerprint(provider) != session.who.fingerprint:
            raise invalid_grant("The person's identity provider is not configured as it was; sign in again.")
        self.revocations.poll()
        subjects = (session.who.qualified, f"client:{session.client}")
        if self.revocations.covers([session.family], subjects, session.who.at):
            raise invalid_grant("What this was issued for was revoked.")


def family_of(secret: str) -> str:
    """The id of a family: a digest, because access tokens say it and what opens the family is a secret."""
    return "family:" + hashlib.sha256(secret.encode()).hexdigest()[:32]


def known_scopes(words: Mapping[str, str]) -> tuple[str, ...]:
    """The scopes that tokens of people may have."""
    return tuple(scope for scope in words if scope != OFFLINE)


def scopes_for(app: Application, words: Mapping[str, str]) -> tuple[str, ...]:
    """The scopes that tokens of people may have with this application."""
    known = known_scopes(words)
    return known if app.scopes is None else tuple(scope for scope in known if scope in app.scopes)


def grant(session: Session, app: Application, form: Form, rules: Rules) -> Grant:
    """The token that the application gets now: within what the person agreed to, and what the application may have
    today; less where it asks for less. Raises TokenError.
    """
    words = rules.config.scopes
    most = tuple(scope for scope in session.scopes if scope in scopes_for(app, words))
    asked = scopes_of(form["scope"]) if "scope" in form else most
    if not set(asked) <= set(most):
        raise invalid_scope("More scope than the person agreed to.")
    named = {form[key] for key in ("resource", "audience") if key in form}
    path = rules.resources.path(named.pop()) if len(named) == 1 else session.path
    if named or path is None or not within(path, session.path) or not listed(path, app.audiences):
        raise invalid_target("The person agreed to another target.")
    who, expires = session.who, rules.now + rules.config.token_ttl
    return Grant(
        who.qualified, app.name, path, asked, (app.subject,), expires, parents=(session.family,),
        roles=who.roles, groups=who.groups,
    )  # fmt: skip
