"""What pages are told, and what is held, between a call that needs a grant and the grant."""

from __future__ import annotations

import msgspec


class Pending(msgspec.Struct, frozen=True):
    """A connection that a call waits for. ``user`` is the key of the user (``Person.key``), ``asked_by`` the apps and
    agents through which the call came, oldest first; ``issuer`` the host of who gives the token, ``host`` that to which
    the browser goes; ``scopes`` what will be asked for (empty: what the issuer gives by itself); ``expires`` seconds
    since the epoch.
    """

    server: str
    user: str
    asked_by: tuple[str, ...]
    scopes: tuple[str, ...]
    issuer: str
    expires: float
    host: str = ""

    @property
    def agreed(self) -> tuple[object, ...]:
        """What the user reads and agrees to."""
        return self.server, self.user, self.issuer, self.host, self.scopes


class Started(msgspec.Struct, frozen=True):
    """Where the browser goes now, and what it has to bring back (as a cookie, ``HttpOnly``, ``SameSite=Lax``)."""

    url: str
    cookie: str

    def __repr__(self) -> str:
        return "Started(***)"


class Finished(msgspec.Struct, frozen=True):
    """The user is connected to this server."""

    server: str
    user: str


class Connected(msgspec.Struct, frozen=True):
    """A grant, as its user may see it: no token is in it. ``at`` and ``expires`` are seconds since the epoch."""

    server: str
    issuer: str
    scopes: tuple[str, ...]
    at: float
    expires: float


class Ticket(msgspec.Struct, frozen=True):
    """What a ticket stands for. ``scopes`` are those that a server has asked for besides the usual ones."""

    server: str
    user: str
    asked_by: tuple[str, ...]
    scopes: tuple[str, ...]
    expires: float


class Leg(msgspec.Struct, frozen=True):
    """A browser is at an issuer: everything that its answer is compared with was written down before (OC-5).

    It is there, ``used``, until its grant is kept: when its user is revoked meanwhile, it is gone.
    """

    server: str
    user: str
    url: str
    resource: str
    issuer: str
    iss_expected: bool
    token_endpoint: str
    revocation_endpoint: str
    client_id: str
    client_auth: str
    redirect_uri: str
    verifier: str
    cookie: str = ""
    scopes: tuple[str, ...] = ()
    key: str = ""
    used: bool = False

    def __repr__(self) -> str:
        return "Leg(***)"
