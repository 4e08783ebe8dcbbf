"""Enterprise-managed authorization: the identity provider vouches for its user to the issuer of a server (ID-JAG).

Two legs: a token exchange at the provider (RFC 8693) gives an identity assertion for one issuer, which that issuer
takes for an access token (RFC 7523). Assertions are kept while they hold, because providers count them.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable

import msgspec

from callgate.config import Provider
from callgate.errors import Denied, UpstreamError

from .client import Resolve, Sign, client_assertion
from .discovery import Found
from .grants import EXCHANGE, ID_JAG, ID_TOKEN, Client, Token, given, with_client
from .kept import Kept, Key
from .reach import Reach, object_in


class Vouching:
    """Gets identity assertions of one provider, for one server. ``sign`` signs with callgate's own key."""

    def __init__(
        self,
        provider: Provider,
        reach: Reach,
        resolve: Resolve,
        sign: Sign,
        clock: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._reach = reach
        self._resolve = resolve
        self._sign = sign
        self._clock = clock
        self._endpoint = ""
        self.kept = Kept(clock)

    async def assertion(self, key: Key, id_token: Callable[[], Awaitable[str]], found: Found) -> tuple[str, bool]:
        """An assertion about the user of this ID token for this issuer, and whether it was used before."""
        kept = self.kept.get(key)
        if kept is not None:
            return kept.value, True

        async def exchange() -> Token:
            return await self._exchange(await id_token(), found)

        return (await self.kept.fetch(key, exchange)).value, False

    async def aclose(self) -> None:
        await self.kept.aclose()
        await self._reach.aclose()

    async def _exchange(self, id_token: str, found: Found) -> Token:
        form = {
            "grant_type": EXCHANGE,
            "requested_token_type": ID_JAG,
            "audience": found.issuer.issuer,
            "subject_token": id_token,
            "subject_token_type": ID_TOKEN,
        }
        if found.resource:
            form["resource"] = found.resource
        if found.scopes:
            form["scope"] = " ".join(found.scopes)
        provider, now = self._provider, self._clock()
        secret = await self._resolve(provider.client_secret) if provider.client_secret else ""
        way = provider.client_auth or ("client_secret_basic" if secret else "none")
        client = Client(provider.client_id, way, secret)
        proof = await client_assertion(client, provider.issuer, 60.0, self._sign, now)
        form, headers = with_client(client, form, proof)
        response = await self._reach.post(await self._found(), form, headers)
        if response.status == 200 and object_in(response.body).get("issued_token_type") != ID_JAG:
            raise UpstreamError("gets no token: the identity provider gives no identity assertions (ID-JAG)")
        try:
            token = given(response.status, response.body, now, "n_a").token
        except Denied as refusal:
            raise Denied(
                "is not opened for this user by the identity provider", hint=refusal.hint, data=refusal.data
            ) from None
        return Token(token.value, _ends(token.value) or token.expires)

    async def _found(self) -> str:
        """The token endpoint of the provider, by its metadata."""
        if not self._endpoint:
            issuer = self._provider.issuer
            said = await self._reach.document(issuer.rstrip("/") + "/.well-known/openid-configuration")
            endpoint = said.get("token_endpoint")
            if said.get("issuer") != issuer or not isinstance(endpoint, str):
                raise UpstreamError("gets no token: the metadata of the identity provider are not its own")
            self._endpoint = self._reach.check(endpoint, "an identity provider with a `token_endpoint`")
        return self._endpoint


def _ends(jwt: str) -> float:
    """When an assertion ends, as it says itself; only so that it is not used for too long."""
    try:
        part = jwt.split(".")[1]
        said = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(said["exp"])
    except (IndexError, ValueError, TypeError, KeyError, msgspec.MsgspecError):
        return 0.0
