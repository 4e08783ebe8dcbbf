"""Who signed a token: the checks of its header and its signature, with the keys of one issuer only."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from .claims import read_object
from .jwks import KeySource, Signer
from .refusal import Refused


class ConfiguredAlgorithms(JWSRegistry):
    """The algorithms of the configuration and no others (rule TOK-5)."""

    # The token as a whole is bounded already; providers put certificate chains into the header.
    max_header_length = 16 * 1024
    max_signature_length = 4096

    def get_alg(self, name: str) -> Any:
        # Unlike the original this does not warn of EdDSA: the configuration chose it.
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


def read_token(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a compact token, unverified. The payload is read once; what was read is what was signed.

    Raises Refused.
    """
    try:
        head, body, _ = token.split(b".")
        return read_object(urlsafe_b64decode(head)), read_object(urlsafe_b64decode(body))
    except ValueError as error:
        raise Refused("not accepted", f"not a readable token: {ascii(str(error))[:80]}") from None


class Signatures:
    """The signatures of one issuer, by its ``keys``.

    ``types`` are the accepted ``typ`` in lower case, without ``application/`` (RFC 8725, section 3.11); a token without
    one is a ``jwt``. Keys that a header brings along or points to (``jwk``, ``jku``, ``x5u``) count for nothing.
    """

    def __init__(self, keys: KeySource, algorithms: Iterable[str], types: Collection[str]) -> None:
        self.keys = keys
        self._algorithms = frozenset(algorithms)
        self._types = types
        self._registry = ConfiguredAlgorithms(algorithms=self._algorithms, strict_check_header=False)

    async def signer(self, token: bytes, header: dict[str, Any]) -> Signer:
        """The key that signed the token. Raises Refused."""
        algorithm, kid = self._read_header(header)
        for signer in await self._candidates(kid, algorithm):
            try:
                jws.deserialize_compact(token, signer.key, registry=self._registry)
            except (JoseError, ValueError):
                continue
            return signer
        raise Refused("not accepted", "the signature does not hold")

    def _read_header(self, header: dict[str, Any]) -> tuple[str, str | None]:
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Refused("not accepted", f"alg {ascii(algorithm)[:40]} is not configured")
        if kid is not None and not isinstance(kid, str):
            raise Refused("not accepted", "kid is not text")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in self._types:
            raise Refused("not accepted", f"typ {ascii(kind)[:40]} is not accepted here")
        if "crit" in header or "b64" in header:
            raise Refused("not accepted", "the header asks for extensions")
        return algorithm, kid

    async def _candidates(self, kid: str | None, algorithm: str) -> list[Signer]:
        self.keys.start()
        found = self.keys.find(kid, algorithm)
        if not found:
            await self.keys.demand()
            found = self.keys.find(kid, algorithm)
        if not found:
            reason = "the issuer's keys could not be fetched yet" if self.keys.is_empty else "kid is not known"
            raise Refused("not accepted", reason)
        return found
