"""From an ``Authorization`` header to a principal."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from callgate.config import Identity
from callgate.types import Principal

from .cache import Accepted, Refusals, Verified
from .certificate import Certificates
from .keys import anonymous, holders, principal_key
from .oauth.agents import PREFIX
from .oauth.marks import Revocations
from .operator import OPERATOR_PREFIX
from .possession import JKT, Shown
from .refusal import Refused
from .upstream.presented import Presented

if TYPE_CHECKING:
    from .holding import Holding
    from .oauth.issuing import TokenIssuer
    from .tokens import Tokens

log = logging.getLogger("callgate.identity")

MOST_BYTES = 16 * 1024
#: How long a revocation counts at least (seconds): no issuer's tokens live longer.
KEPT = 90 * 86400.0
_SCHEME, _DPOP = b"bearer ", b"dpop "
_OPERATOR = OPERATOR_PREFIX.encode()


class Recogniser:
    """Says who asks, on every request anew (rule RS-9).

    ``loopback`` says that only this machine can reach the listener; elsewhere nobody is anonymous.
    ``fetch`` brings the bytes behind a URL, ``clock`` seconds since the epoch; ``base`` is the folder that
    ``jwks_file`` is relative to; ``own`` is our own token service.
    ``anonymous`` is the principal of callers without credentials, or ``None``;
    ``presented`` keeps tokens that are to be exchanged, ``revoked`` is told the key of a principal;
    ``revocations`` is where revocations outlive the process;
    ``certificates`` reads the certificates of clients, where proxies pass them on.
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
        self.revocations: Revocations | None = own.revocations if own is not None else None
        self._generation = 0
        self._clock = clock
        # A suspended agent is suspended, however it comes.
        gone = {PREFIX + name for name, agent in identity.agents.items() if agent.status != "active"}
        self._holders = {key: who for key, who in holders(identity.keys).items() if who.subject not in gone}
        self._issuers = frozenset(each.issuer for each in identity.jwt)
        self._accepted = Accepted()
        #: Tokens that hold, but open nothing without a proof: nobody who only bears one is among the accepted.
        self._withheld = Accepted()
        self._refusals = Refusals()
        self._bound_only = identity.oauth is not None and identity.oauth.dpop == "required"
        self.certificates = Certificates(identity.client_certificates) if identity.client_certificates else None
        self._holding: Holding | None = None
        self._tokens: Tokens | None = None
        self.own = own
        if identity.jwt or own is not None:
            from .holding import Holding
            from .tokens import Tokens  # brings cryptography: 50 ms that nobody without issuers waits for

            self._tokens = Tokens(identity.jwt, fetch, clock, base or Path(), own)
            self._holding = Holding(clock, self.certificates, own.proving.nonces if own is not None else None)
        if own is not None:
            own.recognise = self.whose

    def known(self, authorization: bytes | None) -> Principal | None:
        """The principal if no work is needed to say so; ``None`` means: ask ``recognise``.

        One hash, one lookup, one comparison: this runs on every call. Who has to prove more than to have a credential
        is never known.
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

    def holds_key(self, principal: str) -> bool:
        """Whether somebody with this key of a principal has a static key."""
        return any(who.key == principal for who in self._holders.values())

    async def recognise(self, authorization: bytes | None, shown: Shown | None = None) -> Principal:
        """The principal; ``shown`` is what the request proves besides (``None``: nothing can be proved there).

        Raises Refused (an Unauthenticated), also when a header does not hold where none is needed; Overloaded.
        """
        principal = self.known(authorization)
        if principal is not None:
            return principal
        try:
            if authorization is None:
                raise Refused("missing", "no Authorization header")
            credential = read_credential(authorization)
            principal = await self._whose(credential)
            self._check_held(authorization, credential, principal, shown)
            return principal
        except Refused as refused:
            log.debug("refused (%s): %s", refused.kind, refused.reason)
            raise

    async def whose(self, authorization: bytes) -> Principal:
        """Whose a credential is that somebody else hands over, who proved who they are in a way of their own.

        Nothing is asked for that it may be bound to: this is no way in. Raises Refused.
        """
        who = self.known(authorization) or await self._whose(read_credential(authorization))
        # What another process revoked ends what is known here within a minute, but not what is made of it now.
        if self.gone(who, _issued(who)):
            raise Refused("not accepted", "the subject's tokens were revoked after this one was issued")
        return who

    def shown(self, method: str, url: str, headers: Mapping[bytes, bytes], peer: str) -> Shown:
        """What a request shows besides its credential. ``url`` is its public URL, ``peer`` the address it came from."""
        certificates = self.certificates
        proof = headers.get(b"dpop")
        if certificates is None or not certificates.trusts(peer):
            return Shown(method, url, proof)
        return Shown(method, url, proof, headers.get(certificates.header), headers.get(certificates.chain_header))

    def _check_held(self, authorization: bytes, credential: bytes, who: Principal, shown: Shown | None) -> None:
        """Raises Refused for a token that is bound and does not come with its proof, or comes as what it is not."""
        to_key, as_bound = JKT in who.confirmation, _is_dpop(authorization)
        if to_key and not as_bound:
            raise Refused("bound", "the token is bound to a key, and came as if it were not")
        if as_bound and not to_key:
            raise Refused("not accepted", "the scheme is DPoP, and the token is not bound to a key")
        if self._bound_only and not who.confirmation:
            raise Refused("bound", "the token is not bound, and only bound ones are accepted")
        if who.confirmation:
            assert self._holding is not None
            self._holding.check(who, credential, shown)

    async def _whose(self, credential: bytes) -> Principal:
        if self._tokens is None or credential.count(b".") != 2:
            raise Refused("unknown key", "no configured key has this hash")
        digest = hashlib.sha256(credential).digest()
        known = self._accepted.get(digest, self._clock()) or self._withheld.get(digest, self._clock())
        return known or await self._examine(self._tokens, credential, digest)

    async def _examine(self, tokens: Tokens, credential: bytes, digest: bytes) -> Principal:
        before = self._refusals.get(digest, self._clock())
        if before is not None:
            raise before
        try:
            verified = self._proven(await tokens.verify(credential), digest)
            if self.gone(verified.principal, verified.issued):
                raise Refused("not accepted", "the subject's tokens were revoked after this one was issued")
            alone = not verified.principal.confirmation and not self._bound_only
            (self._accepted if alone else self._withheld).put(digest, verified, self._clock())
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
        if self._bound_only and who.via == "jwt" and not who.confirmation:
            return False
        if who.audience:
            return self.own is not None and self.own.holds(who)
        if who.via == "jwt":
            current = who.expires > self._clock() and who.issuer in self._issuers
            return current and not self.gone(who, _issued(who))
        return who.via == "operator" or self.anonymous is not None

    def left(self, who: Principal) -> float:
        """For how long what somebody opened may go on (seconds): a credential may end before it expires."""
        return max(0.0, who.expires - self._clock()) if self.holds(who) else 0.0

    def start(self) -> None:
        """Begin to fetch the keys of all issuers, so that the first token does not wait. Needs a running loop."""
        if self._tokens is not None:
            self._tokens.start()

    def inherit(self, previous: Recogniser) -> None:
        """Take over issuers' last good keys and revocations from the recogniser that this one replaces."""
        self._accepted.adopt_revocations(previous._accepted)
        self._withheld.adopt_revocations(previous._withheld)
        if self._holding is not None and previous._holding is not None:
            self._holding.replays = previous._holding.replays  # what was used stays used
        if self._tokens is not None and previous._tokens is not None:
            self._tokens.inherit(previous._tokens)
        if self.own is not None and previous.own is not None:
            self.own.inherit(previous.own)

    def revoke(self, issuer: str, subject: str) -> None:
        """Refuse, from now on, all tokens until now that were issued to ``subject``, or to agents and applications in
        the subject's name (rule TOK-2). Touches the disk, where a restart and other processes find it.

        Our own agents have our issuer, or ``""``: ``revoke("", "agent:planner")``.
        """
        self._refuse(issuer, subject)
        self._remember(issuer, subject)

    async def offboard(self, issuer: str, subject: str) -> None:
        """``revoke``, for the event loop: nothing of the subject's counts from the first moment on, and it is on disk
        when this returns. Raises OSError where it cannot be written; it counts here all the same.
        """
        self._refuse(issuer, subject)
        await asyncio.to_thread(self._remember, issuer, subject)

    def look(self) -> None:
        """See what other processes have revoked, before the tokens of now are verified anew (a minute at most)."""
        if self.revocations is not None and self._generation != (now := self.revocations.poll()):
            self._generation = now
            self._accepted.clear()
            self._withheld.clear()

    def _refuse(self, issuer: str, subject: str) -> None:
        ours = self.own is not None and issuer in ("", self.own.issuer)
        for each in {issuer, "", self.own.issuer} if ours and self.own is not None else {issuer}:
            key = principal_key(each, subject)
            self._accepted.revoke(key, self._clock())
            self._withheld.revoke(key, self._clock())
            self.revoked(key)

    def _remember(self, issuer: str, subject: str) -> None:
        if self.revocations is not None:
            known = subject if self.own is not None and issuer in ("", self.own.issuer) else f"{issuer}#{subject}"
            kept = KEPT if self.own is None else max(KEPT, self.own.config.refresh_ttl + 1)
            self.revocations.add(f"sub:{known}", self._clock() + kept)

    def gone(self, who: Principal, issued: float) -> bool:
        """Whether somebody was revoked after they proved who they are (``issued``) with a token of another issuer, or
        with one of these in a browser.
        """
        if self.revocations is None or who.audience:
            return False
        self.revocations.poll()
        return self.revocations.covers((), [f"{who.issuer}#{who.subject}"], issued)

    async def aclose(self) -> None:
        if self._tokens is not None:
            await self._tokens.aclose()
        if self.own is not None:
            await self.own.aclose()


def _admits_anonymous(identity: Identity, loopback: bool) -> bool:
    if not loopback:
        return False
    if identity.anonymous is None:
        return not (identity.keys or identity.jwt or identity.providers) and identity.oauth is None
    return identity.anonymous


def _issued(who: Principal) -> float:
    """When a token of another issuer was issued; one that does not say so is older than everything."""
    issued = who.claims.get("iat")
    return float(issued) if isinstance(issued, (int, float)) else float("-inf")


def _is_dpop(authorization: bytes) -> bool:
    return authorization[: len(_DPOP)].lower() == _DPOP


def read_credential(authorization: bytes) -> bytes:
    """The credential of a ``Bearer`` header (RFC 6750, section 2.1) or a ``DPoP`` one (RFC 9449, section 7.1), bounded
    before anything reads it.
    """
    if len(authorization) > MOST_BYTES + len(_SCHEME):
        raise Refused("not accepted", f"longer than {MOST_BYTES} bytes")
    scheme = _DPOP if _is_dpop(authorization) else _SCHEME
    if authorization[: len(scheme)].lower() != scheme:
        raise Refused("not accepted", "the scheme is neither Bearer nor DPoP")
    credential = authorization[len(scheme) :].strip(b" ")
    # A space inside also means: two headers that something joined into one.
    if not credential or not all(0x21 <= byte <= 0x7E for byte in credential):
        raise Refused("not accepted", "empty, or with characters that no credential has")
    if credential.startswith(_OPERATOR):
        raise Refused("not accepted", "the operator's token is for the admin listener only")
    return credential
