"""What a request for a token proves besides who the client is: a key (RFC 9449), or a certificate (RFC 8705)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from callgate.config import Identity, OAuth
from callgate.identity.certificate import Certificate, Certificates
from callgate.identity.possession import PROOF_ALGORITHMS, Proved, Shown
from callgate.identity.refusal import Refused
from callgate.store import secret_key

from .certified import TLS_CLIENT_AUTH
from .dpop import WINDOW, Proofs
from .marks import Seen
from .nonces import Nonces
from .problem import TokenError, invalid_request
from .surroundings import Surroundings


class NonceWanted(TokenError):
    """The proof has to carry a nonce (RFC 9449, section 8): ``headers`` has the one to use."""

    def __init__(self, nonce: str) -> None:
        super().__init__("use_dpop_nonce", "The proof needs the nonce of the DPoP-Nonce header.")
        self.headers = {"dpop-nonce": nonce}


class Proving:
    """The checks of one token service. Proofs count once, in all processes over its data directory."""

    def __init__(self, identity: Identity, around: Surroundings, clock: Callable[[], float]) -> None:
        config = identity.oauth or OAuth()
        certificates = identity.client_certificates
        self.certificates = Certificates(certificates) if certificates is not None else None
        self.nonces = Nonces(lambda: secret_key(around.data_dir, "dpop-nonces"), clock) if config.dpop_nonce else None
        self._proofs = Proofs(clock, self.nonces)
        self._seen = Seen(around.data_dir / "oauth" / "proofs", clock)

    def open(self) -> None:
        """Have the key of the nonces ready. Touches the disk; raises ConfigError."""
        if self.nonces is not None:
            self.nonces.current()

    def metadata(self) -> dict[str, Any]:
        told: dict[str, Any] = {"dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS)}
        if self.certificates is not None:
            told["tls_client_certificate_bound_access_tokens"] = True
        return told

    def methods(self, spiffe: bool) -> tuple[str, ...]:
        """How clients may prove themselves besides; ``spiffe``: there is a trust domain to verify certificates by."""
        return (TLS_CLIENT_AUTH,) if spiffe and self.certificates is not None else ()

    def headers(self) -> dict[str, str]:
        """What goes with an answer: the nonce of the next proof."""
        return {"dpop-nonce": self.nonces.current()} if self.nonces is not None else {}

    async def prove(self, shown: Shown) -> Proved:
        """What a request proves, before anybody asks who sent it. Raises TokenError for a proof that does not hold."""
        certificate = self.certificate(shown)
        if shown.proof is None:
            return Proved(certificate=certificate)
        try:
            proof = self._proofs.verify(shown.proof, shown.method, shown.url)
        except Refused as refused:
            raise NonceWanted(refused.nonce) if refused.kind == "nonce" else _not_held() from None
        if await asyncio.to_thread(self._seen.has, proof.jkt, proof.jti):
            raise _not_held()
        return Proved(proof, certificate)

    def certificate(self, shown: Shown) -> Certificate | None:
        """The certificate that the client connected with. Raises TokenError."""
        if shown.certificate is None or self.certificates is None:
            return None
        try:
            return self.certificates.read_all(shown.certificate, shown.intermediates)
        except Refused:
            raise invalid_request("The certificate that the proxy passed on cannot be read.") from None

    async def use(self, proved: Proved) -> None:
        """Use the proof up; called once a token is about to leave, so that only who may have one takes room here.

        Raises TokenError when another request was first.
        """
        proof = proved.proof
        if proof is not None and not await asyncio.to_thread(
            self._seen.take, proof.jkt, proof.jti, proof.issued + WINDOW + 1
        ):
            raise _not_held()


def _not_held() -> TokenError:
    return TokenError("invalid_dpop_proof", "The DPoP proof is not accepted: make a new one for this request.")
