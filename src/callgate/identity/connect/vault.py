"""Where the grants of users are kept: sealed, each for its user, server, issuer and client (rules SEC-4 and SEC-5)."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from callgate.identity.secrets.held import Hold
from callgate.types import DEFAULT_TENANT

KIND = "upstream-grant"
#: Seconds after which a user is asked again, whatever happened meanwhile.
LASTS = 365 * 86400.0
#: Seconds in which a process may be busy with a refresh before another one begins; longer than its requests may take:
#: with this refresh token and the one before it, each once more where the issuer wants a nonce.
LEASE = 45.0
#: Seconds in which the refresh token before this one is kept: its successor may not have arrived everywhere (SEC-6).
PREVIOUS = 60.0


class Grant(msgspec.Struct, frozen=True):
    """What an issuer gave for one user at one server. ``asked`` are the scopes of all requests so far (SEC-8), ``born``
    is when the access token came, ``key`` the private key that the tokens are bound to (empty: they are not).
    ``lease`` is the mark of who refreshes it, until ``lease_until``. Times are seconds since the epoch.
    """

    server: str
    url: str
    user: str
    issuer: str
    client_id: str
    client_auth: str
    resource: str
    token_endpoint: str
    revocation_endpoint: str
    asked: tuple[str, ...]
    scopes: tuple[str, ...]
    access: str
    expires: float
    born: float
    at: float
    refresh: str = ""
    previous: str = ""
    previous_until: float = 0.0
    key: str = ""
    lease: str = ""
    lease_until: float = 0.0

    @property
    def name(self) -> str:
        return msgspec.json.encode((DEFAULT_TENANT, self.user, self.server, self.issuer, self.client_id)).decode()

    def __repr__(self) -> str:
        return f"Grant({self.server!r}, ***)"

    __str__ = __repr__


class Vault:
    """The grants of one house, for all its processes."""

    def __init__(self, hold: Hold, clock: Callable[[], float]) -> None:
        self._grants = hold(KIND, Grant)
        self._clock = clock

    async def find(self, user: str, fits: Callable[[Grant], bool]) -> Grant | None:
        """The user's newest grant that fits."""
        found = [grant for grant in await self._grants.of(user) if fits(grant)]
        return max(found, key=lambda grant: grant.at, default=None)

    async def of(self, user: str) -> list[Grant]:
        return await self._grants.of(user)

    async def keep(self, grant: Grant) -> None:
        await self._grants.put(grant.name, grant, grant.user, grant.at + LASTS)

    async def change(self, grant: Grant, change: Callable[[Grant], Grant | None]) -> Grant | None:
        """Change a grant in one step; returns what it is afterwards."""
        after: list[Grant | None] = []

        def step(now: Grant) -> Grant | None:
            after.append(change(now))
            return after[-1]

        await self._grants.change(grant.name, step)
        return after[-1] if after else None

    async def drop(self, grant: Grant) -> None:
        await self._grants.drop(grant.name)

    async def drop_user(self, user: str) -> None:
        await self._grants.drop_owner(user)

    # Refreshing: at any time one process does it, however many want to.

    async def lease(self, grant: Grant) -> tuple[Grant | None, bool]:
        """What the grant is now, and whether it is for the caller to refresh it (else another one does, or did)."""
        mark, now = secrets.token_hex(8), self._clock()

        def step(current: Grant) -> Grant | None:
            if current.access != grant.access or not current.refresh or current.lease_until > now:
                return current
            return msgspec.structs.replace(current, lease=mark, lease_until=now + LEASE)

        current = await self.change(grant, step)
        return current, current is not None and current.lease == mark

    async def release(self, grant: Grant) -> None:
        await self.change(grant, lambda now: _freed(now) if now.lease == grant.lease else now)

    async def renewed(self, grant: Grant, fresh: Grant) -> Grant | None:
        """Write down what a refresh gave, before any of it is used. Should another process have been faster, its
        grant counts.
        """

        def step(now: Grant) -> Grant:
            return fresh if (now.access, now.refresh) == (grant.access, grant.refresh) else now

        return await self.change(grant, step)


def _freed(grant: Grant) -> Grant:
    return msgspec.structs.replace(grant, lease="", lease_until=0.0)
