"""Whether the sender of a bound token holds what it is bound to (RFC 9449, section 7; RFC 8705, section 3)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

from callgate.types import Principal

from .certificate import Certificates
from .possession import JKT, X5T, Shown
from .refusal import Refused

if TYPE_CHECKING:
    from .oauth.nonces import Nonces


class Holding:
    """The checks of one recogniser, and the proofs that were used there."""

    def __init__(
        self, clock: Callable[[], float], certificates: Certificates | None, nonces: Nonces | None = None
    ) -> None:
        from .oauth.dpop import Proofs  # brings cryptography
        from .oauth.replays import Replays

        self._proofs = Proofs(clock, nonces)
        self._certificates = certificates
        self.replays = Replays(clock)

    def check(self, who: Principal, token: bytes, shown: Shown | None) -> None:
        """Raises Refused unless the request shows all that the token of ``who`` is bound to; uses up its proof.

        ``shown`` is ``None`` where a credential comes without a request of HTTP: nothing is proved there.
        """
        if shown is None:
            raise Refused("bound", "the token is bound, and nothing can be proved here")
        expected = who.confirmation.get(X5T)
        if expected is not None:
            self._check_certificate(expected, shown)
        key = who.confirmation.get(JKT)
        if key is not None:
            self._check_key(key, token, shown)

    def _check_certificate(self, expected: str, shown: Shown) -> None:
        if self._certificates is None or shown.certificate is None:
            raise Refused("bound", "the token is bound to a certificate, and no proxy told of one")
        given = self._certificates.read(shown.certificate).thumbprint
        if not hmac.compare_digest(given, expected):
            raise Refused("bound", "the token is bound to another certificate")

    def _check_key(self, key: str, token: bytes, shown: Shown) -> None:
        if shown.proof is None:
            raise Refused("proof", "there is no proof")
        proof = self._proofs.verify(shown.proof, shown.method, shown.url, token)
        if not hmac.compare_digest(proof.jkt, key):
            raise Refused("proof", "the proof is of another key than the token")
        self.replays.take(proof)
