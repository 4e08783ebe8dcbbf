"""Who signed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.identity.keys import principal_key
from callgate.types import Principal


class Person(msgspec.Struct, frozen=True):
    """Somebody who signed in at an identity provider.

    ``issuer`` is the provider's own name, ``provider`` that of its entry in the configuration; roles and groups are
    those after the mapping of the configuration, as of the sign-in, and ``fingerprint`` names the settings by which
    that was decided. ``at`` and ``expires`` (of the browser session) are seconds since the epoch.
    """

    issuer: str
    subject: str
    provider: str
    name: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Any] = msgspec.field(default_factory=dict)
    at: float = 0.0
    expires: float = 0.0
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """The key of the principal that this person is."""
        return principal_key(self.issuer, self.subject)

    @property
    def principal(self) -> Principal:
        """The principal that this person is."""
        return Principal(
            self.subject, self.key, issuer=self.issuer, roles=self.roles, groups=self.groups, claims=self.claims,
            via="jwt", expires=self.expires,
        )  # fmt: skip

    @property
    def qualified(self) -> str:
        """The ``sub`` of tokens of ours for this person."""
        return f"{self.issuer}#{self.subject}"


class ProviderTokens(msgspec.Struct, frozen=True):
    """What a provider issued for a person, for use at that provider only. ``expires`` (seconds since the epoch) is that
    of the ID token. It does not show itself when it is printed.
    """

    provider: str
    issuer: str
    subject: str
    id_token: str
    expires: float
    refresh_token: str = ""

    def __repr__(self) -> str:
        return f"ProviderTokens({self.provider!r}, ***)"

    __str__ = __repr__
