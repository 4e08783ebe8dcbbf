"""What a server says about a running call, on its way to the client that made the call."""

from __future__ import annotations

from collections.abc import Callable

from callgate.types import Call

from .wire import LEVELS, Envelope, notification, params_of

Emit = Callable[[bytes], None]


class Relay:
    """The client's end of one call: progress with the client's own token, log messages it asked for."""

    __slots__ = ("_call", "_emit", "_ident", "_token")

    def __init__(self, call: Call, ident: int, emit: Emit | None) -> None:
        self._call = call
        self._emit = emit
        self._ident = ident
        self._token = call.meta.get("progressToken")

    @property
    def wants_progress(self) -> bool:
        return self._emit is not None and self._token is not None

    def heard(self, message: Envelope) -> None:
        """A notification that belongs to this call."""
        if self._emit is None:
            return
        if message.method == "notifications/progress":
            self.progress(params_of(message))
        elif message.method == "notifications/message":
            self.log(params_of(message))

    def progress(self, params: dict[str, object]) -> None:
        token = params.get("progressToken")
        if self._emit is None or self._token is None or str(token) != str(self._ident):
            return
        params["progressToken"] = self._token
        self._emit(notification("notifications/progress", params))

    def log(self, params: dict[str, object]) -> None:
        """A modern client gets log messages only if it asked; a legacy one that set no level gets all of them."""
        asked = self._call.front.log_level
        if self._emit is None or (asked is None and self._call.front.era == "modern"):
            return
        if asked is None or rank(params.get("level")) >= rank(asked):
            self._emit(notification("notifications/message", params))


def rank(level: object) -> int:
    """Severity of a level of RFC 5424; an unknown one counts as ``info``."""
    return LEVELS.index(level) if isinstance(level, str) and level in LEVELS else 1


class Loudness:
    """The log level of a session that several callers share: the most verbose level that anybody asked for."""

    def __init__(self, offered: bool) -> None:
        self._offered = offered
        self._level: str | None = None

    def raise_for(self, call: Call) -> str | None:
        """The level to set before this call, or ``None`` when the session is verbose enough."""
        asked = call.front.log_level
        if asked is None or not self._offered or (self._level is not None and rank(self._level) <= rank(asked)):
            return None
        self._level = asked
        return asked
