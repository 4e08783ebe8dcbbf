"""Why a credential does not hold: a little for the caller, the rest for the log."""

from __future__ import annotations

from typing import Literal

from callgate.errors import Unauthenticated

Kind = Literal["missing", "expired", "unknown key", "not accepted", "bound", "proof", "nonce"]

_SENTENCES: dict[Kind, str] = {
    "missing": "This request carries no credential.",
    "expired": "The token has expired.",
    "unknown key": "The key is not known here.",
    "not accepted": "The credential is not accepted.",
    "bound": "The token is bound to something that this request does not prove.",
    "proof": "The proof of possession is not accepted.",
    "nonce": "The proof of possession needs a nonce of callgate's.",
}
_HINTS: dict[Kind, str] = {
    "missing": "Send `Authorization: Bearer KEY-OR-TOKEN`.",
    "expired": "Get a new token.",
    "unknown key": "Check the key, or ask the operator for a new one.",
    "not accepted": "Ask the operator; the log of callgate says why.",
    "bound": "Send it as `Authorization: DPoP` with a proof, or over a connection with its certificate.",
    "proof": "Sign a fresh DPoP proof for this method and URL, with the key of the token.",
    "nonce": "Send the request again, with a proof that carries the nonce of the DPoP-Nonce header.",
}


class Refused(Unauthenticated):
    """A request without a credential that holds.

    ``kind`` is all that a caller learns: which check failed would help only an attacker. ``reason`` says it
    exactly, for the log; neither ever contains the credential. ``nonce`` is the one that the next proof is to carry.
    """

    def __init__(self, kind: Kind, reason: str, nonce: str = "") -> None:
        super().__init__(_SENTENCES[kind], hint=_HINTS[kind])
        self.kind: Kind = kind
        self.reason = reason
        self.nonce = nonce
