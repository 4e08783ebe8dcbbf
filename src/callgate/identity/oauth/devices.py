"""The device grant: who has no browser here signs in with one elsewhere, by a short code (RFC 8628).

The device code is the terminal's secret and polls; the user code is typed by a person, who then sees what is asked for
and by whom. Both lead to one row, and a decision is made once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from callgate.identity.secrets.held import Held, Hold
from callgate.identity.signin.person import Person

from .apps import Application, Client
from .grant_types import DEVICE
from .grants import Grant, Rules
from .problem import TokenError, invalid_grant, invalid_scope, invalid_target
from .request import Form, needed, scopes_of
from .resources import EVERYTHING, listed
from .sessions import OFFLINE, Session, scopes_for
from .signed_in import SignedIn, known_app, session_of
from .user_codes import new_user_code

if TYPE_CHECKING:
    from .issuing import Asking

#: How long a code may be used, and how much longer it is known that it was (seconds): as codes are (``codes.py``).
LIFETIME, REMEMBERED = 600.0, 3700.0
#: Seconds between two questions of a terminal, what is added each time it does not wait, and what is still in time.
INTERVAL, SLOWER, EARLY = 5.0, 5.0, 0.5
State = Literal["waiting", "approved", "denied", "used"]


class Device(msgspec.Struct, frozen=True):
    """A terminal that waits: for which application and endpoint (its path), with which scopes, and from which address
    it asked ``at`` which time. Times are seconds since the epoch. ``session`` and ``secret`` are those of the family
    that the person agreed to.
    """

    client: str
    path: str
    scopes: tuple[str, ...]
    address: str
    at: float
    expires: float
    user_code: str
    interval: float
    state: State = "waiting"
    asked: float = 0.0
    session: Session | None = None
    secret: str = ""

    @property
    def told(self) -> dict[str, str]:
        """What a record says of it."""
        return {"client": self.client, "scope": " ".join(self.scopes), "device_address": self.address}


class _Way(msgspec.Struct, frozen=True):
    """Where a user code leads."""

    device_code: str


class Devices:
    """Owns the device codes and the user codes."""

    def __init__(self, hold: Hold, signed_in: SignedIn, clock: Callable[[], float]) -> None:
        self._held: Held[Device] = hold("device", Device)
        self._ways: Held[_Way] = hold("user-code", _Way)
        self._signed_in = signed_in
        self._clock = clock

    async def begin(self, client: Client, form: Form, rules: Rules, address: str) -> tuple[str, Device]:
        """A device code, and what it stands for. Raises TokenError for what the client may not have."""
        app = known_app(client)
        if DEVICE not in app.grants:
            raise TokenError("unauthorized_client", "The client may not use this grant.")
        path, scopes = wanted(app, form, rules)
        now, device_code = self._clock(), "cgd_" + secrets.token_urlsafe(32)
        user_code = new_user_code()
        while await self._ways.get(user_code) is not None:
            user_code = new_user_code()
        device = Device(app.name, path, scopes, address, now, now + LIFETIME, user_code, INTERVAL)
        await self._held.put(device_code, device, app.subject, device.expires + REMEMBERED)
        await self._ways.put(user_code, _Way(device_code), app.subject, device.expires)
        return device_code, device

    async def find(self, user_code: str) -> Device | None:
        """The terminal that waits with this code; ``None`` also when it was decided on, or waits no longer."""
        way = await self._ways.get(user_code)
        device = await self._held.get(way.device_code) if way is not None else None
        return device if device is not None and self._waits(device) else None

    async def approve(self, user_code: str, person: Person, app: Application) -> Device | None:
        """Give the terminal what it waits for, in the name of this person; ``None`` when it waits no longer."""

        def step(device: Device) -> Device:
            session, secret = session_of(app, person, device.path, device.scopes)
            return msgspec.structs.replace(device, state="approved", session=session, secret=secret)

        return await self._decide(user_code, step)

    async def deny(self, user_code: str) -> Device | None:
        return await self._decide(user_code, lambda device: msgspec.structs.replace(device, state="denied"))

    async def by_device(self, asking: Asking) -> Grant:
        """The device grant: the answer to a terminal that asks. Raises TokenError."""
        app, name = known_app(asking.client), needed(asking.form, "device_code")
        early: list[float] = []

        def step(device: Device) -> Device:
            if device.client != app.name:
                return device
            if device.state == "approved" and device.expires > self._clock():
                return msgspec.structs.replace(device, state="used")
            now, slower = self._clock(), 0.0
            if 0 <= now - device.asked < device.interval - EARLY:
                early.append(now)
                slower = SLOWER
            return msgspec.structs.replace(device, asked=now, interval=device.interval + slower)

        device = await self._held.change(name, step)
        if device is None or device.client != app.name:
            raise invalid_grant("The device code is not accepted.")
        if device.state == "used":
            assert device.session is not None
            await self._signed_in.refreshing.end(device.secret, device.session)
            raise TokenError(
                "invalid_grant", "The device code was used before; what it gave has ended.",
                told={"event": "device code used twice", **device.told},
            )  # fmt: skip
        self._check(device, bool(early))
        assert device.session is not None
        return await self._signed_in.begin(app, device.session, device.secret, asking.form, asking.confirmation)

    def _check(self, device: Device, early: bool) -> None:
        """Raises TokenError while there is nothing to give (RFC 8628, section 3.5)."""
        if device.expires <= self._clock():
            raise TokenError("expired_token", "Nobody typed the code in time.")
        if device.state == "denied":
            raise TokenError("access_denied", "The person said no.")
        if device.state == "waiting":
            if early:
                raise TokenError("slow_down", "Wait longer between two questions.")
            raise TokenError("authorization_pending", "The person has not decided yet.")

    async def _decide(self, user_code: str, step: Callable[[Device], Device]) -> Device | None:
        """Of several who decide at the same time, one does."""
        way = await self._ways.get(user_code)
        if way is None:
            return None
        decided: list[Device] = []

        def once(device: Device) -> Device:
            if not self._waits(device):
                return device
            decided.append(step(device))
            return decided[0]

        await self._held.change(way.device_code, once)
        await self._ways.drop(user_code)
        return decided[0] if decided else None

    def _waits(self, device: Device) -> bool:
        return device.state == "waiting" and device.expires > self._clock()


def wanted(app: Application, form: Form, rules: Rules) -> tuple[str, tuple[str, ...]]:
    """Endpoint (its path) and scopes that an application asks for. Raises TokenError for more than it may have."""
    most = scopes_for(app, rules.config.scopes)
    # Clients ask for all that they find in our metadata, and scopes that only agents have are there too.
    passed_over = {OFFLINE, *(scope for scope in rules.agents.scopes if scope not in rules.config.scopes)}
    asked = tuple(scope for scope in scopes_of(form["scope"]) if scope not in passed_over) if "scope" in form else most
    if not set(asked) <= set(most):
        raise invalid_scope("The application may not have one of these scopes.")
    path = rules.resources.path(form["resource"]) if "resource" in form else EVERYTHING
    if path is None or not listed(path, app.audiences):
        raise invalid_target("The application may not have tokens for this target.")
    return path, asked
