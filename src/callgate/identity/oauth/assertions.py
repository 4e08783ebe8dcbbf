"""The grant of RFC 7523: a token for an assertion that another issuer signed.

A workload's assertion says which agent it is, so nobody else has to (workload identity federation, SEP-1933). An
identity assertion (ID-JAG, SEP-990) says which person an authenticated client may act for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.identity.federation.workloads import MOST_BYTES, Proven, Workloads
from callgate.identity.refusal import Refused
from callgate.identity.signatures import read_token

from .agents import Registered
from .clients import ASSERTION
from .grant_types import JWT_BEARER
from .grants import Grant, Rules, by_credentials
from .id_jag import PROFILE, IdentityAssertions, is_id_jag
from .problem import TokenError, invalid_client, invalid_grant
from .request import Form, needed

if TYPE_CHECKING:
    from .issuing import Asking

log = logging.getLogger("callgate.identity")

#: The name of the way (``draft-ietf-oauth-spiffe-client-auth``, section 4), and the type of its assertions.
SPIFFE_JWT = "spiffe_jwt"
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


def speaks_for_itself(form: Form, authorization: bytes | None) -> bool:
    """Whether a request for a token has no client that proves itself, because its assertion will say who it is. That
    can only be a workload's: an identity assertion is worth nothing without the client that it names.
    """
    if form.get("grant_type") != JWT_BEARER or authorization is not None:
        return False
    return not {"client_secret", "client_assertion"} & form.keys() and not _says_id_jag(form.get("assertion", ""))


class Assertions:
    """``workloads`` and ``people`` verify the two kinds. ``names`` are ours, that a workload's assertion may be for;
    ``rules`` says what the rules of issue look at, as of now.
    """

    def __init__(
        self,
        workloads: Workloads,
        people: IdentityAssertions,
        names: Callable[[], tuple[str, ...]],
        rules: Callable[[], Rules],
    ) -> None:
        self._workloads = workloads
        self._people = people
        self._names = names
        self._rules = rules

    @property
    def grants(self) -> dict[str, Callable[[Asking], Awaitable[Grant]]]:
        """The grant, where the configuration trusts anybody's assertions."""
        return {JWT_BEARER: self.grant} if self._workloads or self._people else {}

    @property
    def methods(self) -> tuple[str, ...]:
        """How clients may prove themselves with assertions of workloads, besides ``private_key_jwt``."""
        return (SPIFFE_JWT,) if self._workloads.spiffe else ()

    def metadata(self) -> dict[str, Any]:
        return {"authorization_grant_profiles_supported": [PROFILE]} if self._people else {}

    def inherit(self, previous: Assertions) -> None:
        self._workloads.inherit(previous._workloads)
        self._people.inherit(previous._people)

    async def aclose(self) -> None:
        await asyncio.gather(self._workloads.aclose(), self._people.aclose())

    async def grant(self, asking: Asking) -> Grant:
        """The handler of ``jwt-bearer``. Raises TokenError."""
        assertion = needed(asking.form, "assertion")
        if _says_id_jag(assertion):
            if asking.client is None:
                raise invalid_client()
            return await self._people.grant(asking, asking.client, assertion.encode(), self._rules())
        proven = await self._proven(assertion)
        if asking.client is not None and asking.client != proven.agent:
            raise invalid_grant("The assertion is not one of this client.")
        _check_named(asking.form, proven)
        rules = self._rules()
        made = by_credentials(proven.agent, asking.form, rules)
        return msgspec.structs.replace(made, expires=min(made.expires, proven.expires), evidence=proven.evidence)

    def proves_client(self, form: Form) -> bool:
        """Whether a request carries an assertion of a workload as client authentication, not yet verified.

        Its type is that of SPIFFE (``draft-ietf-oauth-spiffe-client-auth``, section 3.1), or that of RFC 7523: then its
        issuer tells it from an assertion that a client signed itself.
        """
        assertion, kind = form.get("client_assertion"), form.get("client_assertion_type")
        if assertion is None or "client_secret" in form:
            return False
        return kind == JWT_SPIFFE or (kind == ASSERTION and self._knows(assertion))

    async def client(self, form: Form) -> Registered:
        """The agent that such an assertion stands for. It may be used again until it expires: platforms hand out the
        same one for minutes. Raises TokenError.
        """
        try:
            proven = await self._proven(form["client_assertion"])
            _check_named(form, proven)
        except TokenError:
            raise invalid_client() from None
        return proven.agent

    def _knows(self, assertion: str) -> bool:
        try:
            return len(assertion) <= MOST_BYTES and self._workloads.knows(read_token(assertion.encode())[1])
        except Refused:
            return False

    async def _proven(self, assertion: str) -> Proven:
        try:
            return await self._workloads.prove(assertion.encode(), self._names())
        except Refused as refused:
            log.debug("an assertion is refused (%s): %s", refused.kind, refused.reason)
            expired = "has expired" if refused.kind == "expired" else "is not accepted"
            raise invalid_grant(f"The assertion {expired}.") from None


def _says_id_jag(assertion: str) -> bool:
    """Whether it says to be an identity assertion: what it is, its checks will say."""
    try:
        return len(assertion) <= MOST_BYTES and is_id_jag(read_token(assertion.encode())[0])
    except Refused:
        return False


def _check_named(form: Form, proven: Proven) -> None:
    """``client_id`` may be left out. SPIFFE clients put their SPIFFE id there."""
    if form.get("client_id", proven.agent.name) not in (proven.agent.name, proven.workload.subject):
        raise invalid_grant("The assertion is not one of this client.")
