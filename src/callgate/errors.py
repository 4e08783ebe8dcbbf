"""Every error that callgate raises on purpose.

    CallgateError
    ├── UsageError               the command line is wrong                              exit 2
    ├── ConfigError              a configuration or policy file is wrong                exit 3
    ├── NotFound                 no such tool, server, call                             exit 4
    ├── Unauthenticated          no credential, or one that does not hold               exit 8
    ├── Denied                   policy said no                                         exit 5
    │   ├── AwaitingApproval     policy said: ask a human first                         exit 6
    │   ├── InsufficientScope    the token does not say enough for the call             exit 5
    │   └── ConsentNeeded        the caller must connect to the server with a browser   exit 8
    ├── ProtocolError            the client's message breaks the protocol               exit 2
    ├── Overloaded               a bound was reached: queue, sessions, audit queue      exit 7
    │   └── QuotaExceeded        a rate, quota or budget of the caller is used up       exit 7
    └── UpstreamError            the server behind callgate failed                      exit 7
        ├── UpstreamTimeout      it did not answer in time
        └── UpstreamUnavailable  it cannot be reached, or does not start

Each error carries one sentence (``message``), a ``hint`` that says how to mend it, and where it belongs: a
stable ``code`` for people, a JSON-RPC code and an HTTP status for clients, an exit status for the shell.
JSON-RPC codes of our own lie outside the range that JSON-RPC and MCP reserve (rule ERR-6).
"""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import msgspec

#: Names that are compared with a wrong one.
COMPARED = 64


class Place(msgspec.Struct, frozen=True):
    """Where in a file something stands: 1-based line and column, and how many characters to mark."""

    file: str
    line: int
    column: int = 1
    length: int = 1
    text: str = ""


class CallgateError(Exception):
    """The root. ``message`` is one sentence, ``hint`` says what to do, ``data`` goes to clients."""

    code: ClassVar[str] = "CG0000"
    exit_code: ClassVar[int] = 2
    status: ClassVar[int] = 200
    rpc_code: int = -32603

    def __init__(
        self, message: str, *, hint: str = "", place: Place | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place
        self.data = data

    def again(self, message: str, data: Mapping[str, Any] | None) -> Self:
        """The same error in other words, or for another caller."""
        return type(self)(message, hint=self.hint, data=data)


class UsageError(CallgateError):
    code = "CG0200"


class ConfigError(CallgateError):
    """``problems`` holds every mistake found, so that one run shows them all."""

    code = "CG0300"
    exit_code = 3

    def __init__(self, message: str, *, problems: Iterable[ConfigError] = (), **more: Any) -> None:
        super().__init__(message, **more)
        self.problems: tuple[ConfigError, ...] = tuple(problems)


class NotFound(CallgateError):
    code = "CG0400"
    exit_code = 4
    rpc_code = -32602


class Denied(CallgateError):
    """``verdict`` (a ``callgate.types.Verdict``) is for the audit log; clients read only ``message`` and ``data``."""

    code = "CG0500"
    exit_code = 5
    rpc_code = -31403
    verdict: Any = None


class AwaitingApproval(Denied):
    code = "CG0600"
    exit_code = 6
    rpc_code = -31428


class InsufficientScope(Denied):
    """A client can mend it with another token: ``challenge`` is the ``WWW-Authenticate`` that says which."""

    code = "CG0501"
    status = 403
    rpc_code = -31413
    challenge = ""


class ConsentNeeded(Denied):
    """The caller has to connect to ``server`` with a browser first; ``ticket`` opens the page for that."""

    code = "CG0810"
    exit_code = 8
    rpc_code = -31401  # clients that open pages by themselves are told -32042 (gateway/consent.py)
    server = ""
    ticket = ""

    def again(self, message: str, data: Mapping[str, Any] | None) -> Self:
        other = super().again(message, data)
        other.server, other.ticket = self.server, self.ticket
        return other


class Unauthenticated(CallgateError):
    code = "CG0800"
    exit_code = 8
    status = 401
    rpc_code = -31401


class ProtocolError(CallgateError):
    """The message breaks the protocol; the JSON-RPC code and HTTP status are those of the specification."""

    code = "CG0900"

    def __init__(self, message: str, rpc_code: int = -32600, status: int = 400, **more: Any) -> None:
        super().__init__(message, **more)
        self.rpc_code = rpc_code
        self.http_status = status


class Overloaded(CallgateError):
    code = "CG0710"
    exit_code = 7
    rpc_code = -31429


class QuotaExceeded(Overloaded):
    """``retry_after`` (seconds) says when there is room again; ``record`` names the quota, for the audit log. ``limit``
    is how much is allowed, in words; ``whole`` in ``window`` seconds the same in numbers.
    """

    code = "CG0711"
    status = 429

    def __init__(
        self, message: str, *, retry_after: int = 1, measure: str = "", record: str = "", limit: str = "",
        whole: float = 0.0, window: float = 0.0, **more: Any,
    ) -> None:  # fmt: skip
        told: dict[str, Any] = {"kind": "quota", "measure": measure, "retry_after": retry_after}
        more["data"] = {**told, **({"limit": limit} if limit else {}), **(more.get("data") or {})}
        more["hint"] = more.get("hint") or f"Wait {retry_after} s and call again, or ask the operator for more."
        super().__init__(message, **more)
        self.retry_after, self.measure, self.record = retry_after, measure, record
        self.whole, self.window = whole, window


class UpstreamError(CallgateError):
    code = "CG0700"
    exit_code = 7
    rpc_code = -31502


class UpstreamTimeout(UpstreamError):
    code = "CG0701"
    rpc_code = -31504


class UpstreamUnavailable(UpstreamError):
    code = "CG0702"
    rpc_code = -31503


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to ``name``, or ``""``.

    Comparing costs 20 µs a name, and clients can ask for wrong names all day: of many names only those that stand
    around ``name`` in the alphabet are looked at.

    >>> nearest("polcy", ["policy", "servers"])
    'policy'
    """
    names = list(known)
    if len(names) > COMPARED:
        names.sort()
        at = max(0, bisect.bisect(names, name) - COMPARED // 2)
        names = names[at : at + COMPARED]
    found = difflib.get_close_matches(name[:128], names, n=1, cutoff=0.6)
    return found[0] if found else ""
