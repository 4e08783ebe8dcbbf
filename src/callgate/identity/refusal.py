"""Why a credential does not hold: a little for the caller, the rest for the log."""

from __future__ import annotations

from typing import Literal

from callgate.errors import Unauthenticated

Kind = Literal["missing", "expired", "unknown key", "not accepted"]

_SENTENCES: dict[Kind, str] = {
    "missing": "This request carries no credential.",
    "expired": "The token has expired.",
    "unknown key": "The key is not known here.",
    "not accepted": "The credential is not accepted.",
}
_HINTS: dict[Kind, str] = {
    "missing": "Send `Authorization: Bearer KEY-OR-TOKEN`.",
    "expired": "Get a new token.",
    "unknown key": "Check the key, or ask the operator for a new one.",
    "not accepted": "Ask the operator; the log of callgate says why.",
}


class Refused(Unauthenticated):
    """A request without a credential that holds.

    ``kind`` is all that a caller learns: which check failed would help only an attacker. ``reason`` says it
    exactly, for the log; neither ever contains the credential.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(_SENTENCES[kind], hint=_HINTS[kind])
        self.kind: Kind = kind
        self.reason = reason
