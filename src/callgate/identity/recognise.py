"""From an ``Authorization`` header to a principal."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from callgate.config import Identity
from callgate.types import Principal

from .cache import Accepted, Refusals, Verified
from .keys import anonymous, holders, principal_key
from .oauth.agents import PREFIX
from .operator import OPERATOR_PREFIX
from .refusal import Refused
from .upstream.presented import Presented

if TYPE_CHECKING:
    from .oauth.issuing import TokenIssuer
    from .tokens import Tokens

log = logging.getLogger("callgate.identity")

MOST_BYTES = 16 * 1024
_SCHEME = b"bearer "
_OPERATOR = OPERATOR_PREFIX.encode()


class Recogniser:
    """Says who asks, on every request anew (rule RS-9).

    ``loopback`` says that only this machine can reach the listener; elsewhere nobody is anonymous.
    ``fetch`` brings the bytes behind a URL, ``clock`` seconds since the epoch; ``base`` is the folder that
    ``jwks_file`` is relative to; ``own`` is our own token service.
    ``anonymous`` is the principal of callers without credentials, or ``None``;
    ``presented`` keeps tokens that are to be exchanged, ``revoked`` is told the key of a principal.
    Raises ConfigError.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        loopback: bool,
        fetch: Callable[[str], Awaitable[bytes]],
        clock: Callable[[], float] = time.time,
        base: Path | None = None,
        own: TokenIssuer | None = None,
    ) -> None:
        self.anonymous: Principal | None = anonymous() if _admits_anonymous(identity, loopback) else None
        self.presented: Presented | None = None
        self.revoked: Callable[[str], None] = lambda principal: None
        self._clock = clock
        # A suspended agent is suspended, however it comes.
        gone = {PREFIX + name for name, agent in identity.agents.items() if agent.status != "active"}
        self._holders = {key: who for key, who in holders(identity.keys).items() if who.subject not in gone}
        self._issuers = frozenset(each.issuer for each in identity.jwt)
        self._accepted = Accepted()
        self._refusals = Refusals()
        self._tokens: Tokens | None = None
        self.own = own
        if identity.jwt or own is not None:
            from .tokens import Tokens  # brings cryptography: 50 ms that nobody without issuers waits for

            self._tokens = Tokens(identity.jwt, fetch, clock, base or Path(), own)
        if own is not None:
            own.recognise = self.recognise

    def known(self, authorization: bytes | None) -> Principal | None:
        """The principal if no work is needed to say so; ``None`` means: ask ``recognise``.

        One hash, one lookup, one comparison: this runs on every call.
        """
        if authorization is None:
            return self.anonymous
        if authorization[:7].lower() != _SCHEME:
            return None
        credential = authorization[7:].strip(b" ")
        digest = hashlib.sha256(credential).digest()
        holder = self._holders.get(digest)
        if holder is not None:
            # An operator's token is for the admin listener, even if somebody put its hash among the keys.
            return None if credential.startswith(_OPERATOR) else holder
        return self._accepted.get(digest, self._clock())

    async def recognise(self, authorization: bytes | None) -> Principal:
        """The principal. Raises Refused (an Unauthenticated), also when a header does not hold where none is needed."""
        principal = self.known(authorization)
        if principal is not None:
            return principal
        try:
            if authorization is None:
                raise Refused("missing", "no Authorization header")
            return await self._examine(read_credential(authorization))
        except Refused as refused:
            log.debug("refused (%s): %s", refused.kind, refused.reason)
            raise

    async def _examine(self, credential: bytes) -> Principal:
        if self._tokens is None or credential.count(b".") != 2:
            raise Refused("unknown key", "no configured key has this hash")
        digest = hashlib.sha256(credential).digest()
        before = self._refusals.get(digest, self._clock())
        if before is not None:
            raise before
        try:
            verified = self._proven(await self._tokens.verify(credential), digest)
            self._accepted.put(digest, verified, self._clock())
        except Refused as refused:
            self._refusals.put(digest, refused, self._clock())
            raise
        principal = verified.principal
        if self.presented is not None and (self.own is None or principal.claims.get("iss") != self.own.issuer):
            self.presented.put(digest, credential, principal.expires, principal.key)
        return principal

    def _proven(self, verified: Verified, digest: bytes) -> Verified:
        """Where a server's issuer is to exchange the token, the principal gets its digest."""
        if self.presented is None:
            return verified
        return msgspec.structs.replace(verified, principal=msgspec.structs.replace(verified.principal, proof=digest))

    def holds(self, who: Principal) -> bool:
        """Whether somebody who was recognised before would still be the same: what runs for long asks again."""
        if who.via == "key":
            return who in self._holders.values()
        if who.audience:
            return self.own is not None and self.own.holds(who)
        if who.via == "jwt":
            return who.expires > self._clock() and who.issuer in self._issuers
        return who.via == "operator" or self.anonymous is not None

    def left(self, who: Principal) -> float:
        """For how long what somebody opened may go on (seconds): a token of ours may end before it expires."""
        return 0.0 if who.audience and not self.holds(who) else max(0.0, who.expires - self._clock())

    def start(self) -> None:
        """Begin to fetch the keys of all issuers, so that the first token does not wait. Needs a running loop."""
        if self._tokens is not None:
            self._tokens.start()

    def inherit(self, previous: Recogniser) -> None:
        """Take over issuers' last good keys and revocations from the recogniser that this one replaces."""
        self._accepted.adopt_revocations(previous._accepted)
        if self._tokens is not None and previous._tokens is not None:
            self._tokens.inherit(previous._tokens)

    def revoke(self, issuer: str, subject: str) -> None:
        """Refuse, from now on, all tokens that were issued to ``subject`` until now (rule TOK-2).

        Kept in memory: tokens that outlive the process are revoked at their issuer.
        """
        key = principal_key(issuer, subject)
        self._accepted.revoke(key, self._clock())
        self.revoked(key)
        if self.own is not None:  # and what agents hold in the subject's name
            self.own.revoke_subject(subject if issuer in ("", self.own.issuer) else f"{issuer}#{subject}")

    async def aclose(self) -> None:
        if self._tokens is not None:
            await self._tokens.aclose()
        if self.own is not None:
            await self.own.aclose()


def _admits_anonymous(identity: Identity, loopback: bool) -> bool:
    if not loopback:
        return False
    if identity.anonymous is None:
        return not identity.keys and not identity.jwt and identity.oauth is None
    return identity.anonymous


def read_credential(authorization: bytes) -> bytes:
    """The credential of a ``Bearer`` header (RFC 6750, section 2.1), bounded before anything reads it."""
    if len(authorization) > MOST_BYTES + len(_SCHEME):
        raise Refused("not accepted", f"longer than {MOST_BYTES} bytes")
    if authorization[:7].lower() != _SCHEME:
        raise Refused("not accepted", "the scheme is not Bearer")
    credential = authorization[7:].strip(b" ")
    # A space inside also means: two headers that something joined into one.
    if not credential or not all(0x21 <= byte <= 0x7E for byte in credential):
        raise Refused("not accepted", "empty, or with characters that no credential has")
    if credential.startswith(_OPERATOR):
        raise Refused("not accepted", "the operator's token is for the admin listener only")
    return credential
