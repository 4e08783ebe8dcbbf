"""Proofs of possession (DPoP, RFC 9449): that the sender of one request has the private key of a token.

A proof is a small signed text that names the method and the URL of one request, and the token that goes with it. It
brings its own public key, so it proves nothing by itself: the thumbprint of the key must be the one that the token is
bound to.
"""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import base64_to_int, urlsafe_b64decode

from callgate.identity.claims import read_object
from callgate.identity.possession import PROOF_ALGORITHMS, Proof
from callgate.identity.refusal import Refused
from callgate.identity.s256 import s256

from .nonces import Nonces

#: How far the clocks of client and server may differ, and how old a proof may be (seconds).
WINDOW = 300.0
#: A whole proof, and its header with the key (bytes). An RSA key of 4096 bits takes a thousand.
MOST_BYTES, MOST_HEAD = 8192, 4096
MOST_TEXT = 2048
MOST_ID = 256
#: Keys that are kept ready. Clients use one for long.
MOST_KEYS = 2048
_RSA_BITS = range(2048, 4097)
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KINDS = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519"), "RS256": ("RSA", None), "PS256": ("RSA", None)}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PORTS = {"http": 80, "https": 443}


class _Known(NamedTuple):
    """What the header of a proof says."""

    algorithm: Any
    key: Key
    jkt: str


class Proofs:
    """Verifies proofs. ``nonces`` are those that one must carry. Whether one was used before is looked up elsewhere.

    The keys of proofs are kept parsed, by the very bytes of their header; proofs never are (rule TOK-3).
    """

    def __init__(self, clock: Callable[[], float], nonces: Nonces | None = None) -> None:
        self._clock = clock
        self._nonces = nonces
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def verify(self, proof: bytes, method: str, url: str, token: bytes | None = None) -> Proof:
        """The checks of RFC 9449, section 4.3, but for the key of the token and for replays.

        ``token`` is the access token that the proof must name, for requests that carry one. Raises Refused.
        """
        if len(proof) > MOST_BYTES:
            _refuse(f"longer than {MOST_BYTES} bytes")
        try:
            head, body, signature = proof.split(b".")
            known = self._known.get(head) or _read_head(head)
            claims = read_object(urlsafe_b64decode(body))
            signed = urlsafe_b64decode(signature)
        except (ValueError, TypeError, KeyError, JoseError, UnsupportedAlgorithm) as error:
            _refuse(f"cannot be read: {ascii(str(error))[:80]}")
        made = self._check(claims, known.jkt, method, url)
        if token is not None:
            _check_token(claims, token)
        try:
            holds = known.algorithm.verify(head + b"." + body, signed, known.key)
        except (ValueError, JoseError):
            holds = False
        if not holds:
            _refuse("the signature does not hold")
        self._check_nonce(claims)
        self._keep(head, known)
        return made

    def _check(self, claims: Mapping[str, Any], jkt: str, method: str, url: str) -> Proof:
        if claims.get("htm") != method:
            _refuse("htm is another method")
        told = claims.get("htu")
        if not isinstance(told, str) or len(told) > MOST_TEXT or not same_url(told, url):
            _refuse("htu is another URL")
        issued, now = _moment(claims, "iat"), self._clock()
        if issued is None or not now - WINDOW <= issued <= now + WINDOW:
            _refuse("iat is missing, too old, or in the future")
        if "exp" in claims and (_moment(claims, "exp") or 0.0) <= now:
            _refuse("it has expired")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= MOST_ID:
            _refuse("jti is missing, or too long")
        return Proof(jkt, jti, issued)

    def _check_nonce(self, claims: Mapping[str, Any]) -> None:
        if self._nonces is None:
            return
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not self._nonces.holds(nonce):
            raise Refused("nonce", "the nonce is missing, not ours, or too old", self._nonces.current())

    def _keep(self, head: bytes, known: _Known) -> None:
        self._known[head] = known
        self._known.move_to_end(head)
        if len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)


def _refuse(reason: str) -> NoReturn:
    raise Refused("proof", f"the proof: {reason}")


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _check_token(claims: Mapping[str, Any], token: bytes) -> None:
    told = claims.get("ath")
    if not isinstance(told, str) or not hmac.compare_digest(told.encode(), s256(token).encode()):
        _refuse("ath is of another token")


def _read_head(head: bytes) -> _Known:
    """Raises ValueError or JoseError. What else the header says of keys (``kid``, ``jku``, ``x5c``) means nothing."""
    if len(head) > MOST_HEAD:
        raise ValueError("the header is too long")
    header = read_object(urlsafe_b64decode(head))
    if header.get("typ") != "dpop+jwt":
        raise ValueError("typ is not dpop+jwt")
    if "crit" in header or "b64" in header:
        raise ValueError("the header asks for extensions")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in PROOF_ALGORITHMS:
        raise ValueError("alg is not accepted")
    key = _public_key(header.get("jwk"), algorithm)
    return _Known(JWSRegistry.algorithms[algorithm], key, key.thumbprint())


def _public_key(jwk: object, algorithm: str) -> Key:
    """The public key in a header. Only members that make the key are looked at; each key has one way to be written."""
    if not isinstance(jwk, dict):
        raise ValueError("jwk is missing")
    kind, curve = _KINDS[algorithm]
    if jwk.get("kty") != kind or jwk.get("crv") != curve:
        raise ValueError("the key is not one for alg")
    if not _PRIVATE.isdisjoint(jwk):
        raise ValueError("the key contains its private part")
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        raise ValueError("the key is for something else")
    if kind == "RSA":
        return RSAKey.import_key({"kty": "RSA", **_numbers(jwk)})
    names = ("x", "y") if kind == "EC" else ("x",)
    if any(not isinstance(jwk.get(name), str) or len(jwk[name]) != 43 for name in names):
        raise ValueError("a coordinate does not have 32 bytes")
    parts = {"kty": kind, "crv": curve, **{name: jwk[name] for name in names}}
    return ECKey.import_key(parts) if kind == "EC" else OKPKey.import_key(parts)


def _numbers(jwk: Mapping[str, Any]) -> dict[str, str]:
    """Modulus and exponent of an RSA key that verifies in bounded time."""
    n, e = jwk.get("n"), jwk.get("e")
    if not isinstance(n, str) or not isinstance(e, str) or n[:2] == "AA" or e[:2] == "AA":
        raise ValueError("n or e is missing, or begins with zeros")
    if base64_to_int(n).bit_length() not in _RSA_BITS:
        raise ValueError("an RSA key has 2048 to 4096 bits")
    if len(e) > 6 or base64_to_int(e) < 3:
        raise ValueError("the exponent is too small or too large")
    return {"n": n, "e": e}


def same_url(told: str, url: str) -> bool:
    """Whether a proof names this URL, ignoring query and fragment (RFC 9449, section 4.3, item 9).

    >>> same_url("HTTPS://mcp.Example.org:443/mcp?x=1", "https://mcp.example.org/mcp")
    True
    >>> same_url("https://mcp.example.org/mcp/coder", "https://mcp.example.org/mcp")
    False
    """
    return told == url or ((found := plain_url(told)) is not None and found == plain_url(url))


def plain_url(url: str) -> str | None:
    """A URL in its one plain form (RFC 3986, sections 6.2.2 and 6.2.3), or ``None`` for what is none of ours."""
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not host or "@" in parts.netloc:
        return None
    if any(piece in (".", "..") for piece in parts.path.split("/")):
        return None
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[scheme]:
        place += f":{port}"
    # The endpoints answer with and without a slash at the end alike.
    return f"{scheme}://{place}{_ESCAPE.sub(_plain_escape, parts.path).rstrip('/')}"


def _plain_escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()
