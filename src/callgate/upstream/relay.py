"""What a server says about a running call, on its way to the client that made the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.types import Call, Conduct

from .wire import LEVELS, Envelope, notification, params_of

if TYPE_CHECKING:
    from .questions import Talk


class Relay:
    """The client's end of one call: progress with the client's own token, log messages it asked for.

    ``talk`` is there when the client can be asked.
    """

    __slots__ = ("_emit", "_ident", "_token", "call", "talk")

    def __init__(self, call: Call, ident: int, conduct: Conduct) -> None:
        self.call = call
        self.talk: Talk | None = None
        self._emit = conduct.emit
        self._ident = ident
        self._token = call.meta.get("progressToken")

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
        asked = self.call.front.log_level
        if self._emit is None or (asked is None and self.call.front.era == "modern"):
            return
        if asked is None or rank(params.get("level")) >= rank(asked):
            self._emit(notification("notifications/message", params))


def wants_progress(call: Call, conduct: Conduct) -> bool:
    """Whether the client asked for progress of its call, and reads it."""
    return conduct.emit is not None and call.meta.get("progressToken") is not None


def rank(level: object) -> int:
    """Severity of a level of RFC 5424; an unknown one counts as ``info``."""
    return LEVELS.index(level) if isinstance(level, str) and level in LEVELS else 1


def number(token: object) -> int:
    """A progress token of ours, also when the server turned the number into a string; -1 for anything else."""
    if isinstance(token, int):
        return token
    return int(token) if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 19 else -1


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
