"""Which client callgate is at an issuer: registered by the operator, known by its document, or by itself (OC-7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from callgate.config import UpstreamAuth
from callgate.egress import is_loopback, parse_url
from callgate.errors import CallgateError, UpstreamError
from callgate.identity.secrets.held import Hold
from callgate.identity.upstream.client import Resolve, configured
from callgate.identity.upstream.discovery import Issuer
from callgate.identity.upstream.grants import Client
from callgate.identity.upstream.reach import Reach, object_in

KIND = "upstream-client"
#: Below the public URL: where browsers come back to, and the document that says who callgate is as a client.
CALLBACK = "/oauth/connect/callback"
DOCUMENT = "/oauth/client.json"
LASTS = 5 * 365 * 86400.0
_WAYS = ("client_secret_basic", "client_secret_post", "none")
_GRANTS = ["authorization_code", "refresh_token"]


class Registration(msgspec.Struct, frozen=True):
    """What an issuer gave when callgate registered itself there."""

    issuer: str
    redirect_uri: str
    client_id: str
    client_auth: str
    secret: str = ""

    def __repr__(self) -> str:
        return f"Registration({self.issuer!r}, ***)"


class Registrar:
    """The clients that callgate is, each at one issuer and nowhere else (OC-8). ``base`` is the public URL."""

    def __init__(self, base: Callable[[], str], hold: Hold, clock: Callable[[], float]) -> None:
        self._base = base
        self._held = hold(KIND, Registration)
        self._clock = clock
        # One issuer that takes its time holds up no other.
        self._registering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def redirect_uri(self) -> str:
        return self._base() + CALLBACK

    def document(self) -> dict[str, Any]:
        """The client metadata document (CIMD): its id is the URL at which it is published."""
        return {"client_id": self._base() + DOCUMENT, **self._metadata("none")}

    async def client(self, auth: UpstreamAuth, issuer: Issuer, reach: Reach, resolve: Resolve) -> Client:
        """The client to be at this issuer. Raises UpstreamError where there is no way to be one."""
        if auth.client_id:
            return await configured(auth, resolve)
        if issuer.documents and self._readable_by(issuer):
            return Client(self._base() + DOCUMENT, "none")
        if not issuer.registration_endpoint:
            raise UpstreamError(
                "has an issuer that takes only clients that it knows",
                hint="Register callgate there and set `auth.client_id`.",
            )
        async with self._registering.setdefault(issuer.issuer, asyncio.Lock()):
            kept = await self._held.get(_name(issuer.issuer, self.redirect_uri))
            if kept is None:
                kept = await self._register(issuer, reach, auth.dpop)
        return Client(kept.client_id, kept.client_auth, kept.secret)

    async def known(self, auth: UpstreamAuth, issuer: str, client: Client, resolve: Resolve) -> Client | None:
        """The client of an earlier request, with its secret; ``None`` where callgate is not that client any more."""
        if auth.client_id:
            # Another issuer may know callgate by the same name, and must not see the secret of this one (OC-8).
            same = auth.client_id == client.id and auth.issuer in (None, issuer)
            return await configured(auth, resolve) if same else None
        if client.way == "none":
            return client
        # Not by the address to come back to: that of the gateway may have changed since.
        kept = await self._held.get(_name(issuer, client.id))
        return None if kept is None else Client(kept.client_id, kept.client_auth, kept.secret)

    async def drop(self, issuer: str, client: str) -> None:
        """The issuer does not know the client any more."""
        kept = await self._held.get(_name(issuer, self.redirect_uri))
        if kept is not None and kept.client_id == client:
            await self._held.drop(_name(issuer, self.redirect_uri))
        await self._held.drop(_name(issuer, client))

    async def _register(self, issuer: Issuer, reach: Reach, dpop: bool) -> Registration:
        """Dynamic registration (RFC 7591)."""
        way = next((way for way in _WAYS if way in issuer.methods), _WAYS[0] if not issuer.methods else "none")
        wanted = {**self._metadata(way), **({"dpop_bound_access_tokens": True} if dpop else {})}
        try:
            response = await reach.post(issuer.registration_endpoint, msgspec.json.encode(wanted), {})
        except CallgateError as error:
            raise UpstreamError(f"has an issuer that cannot be registered at: it {error.message}") from None
        said = object_in(response.body)
        id, secret = said.get("client_id"), said.get("client_secret")
        if response.status not in (200, 201) or not isinstance(id, str) or not 0 < len(id) <= 2048:
            raise _refused(response.status, said.get("error"), self.redirect_uri)
        secret = secret if isinstance(secret, str) else ""
        told = said.get("token_endpoint_auth_method")
        way = told if told in _WAYS else way
        made = Registration(issuer.issuer, self.redirect_uri, id, way if secret else "none", secret)
        ends = said.get("client_secret_expires_at")
        limited = secret and isinstance(ends, int | float) and ends > 0
        expires = min(float(ends), self._clock() + LASTS) if limited and ends is not None else self._clock() + LASTS
        for name in (self.redirect_uri, id):
            await self._held.put(_name(issuer.issuer, name), made, f"issuer {issuer.issuer}", expires)
        return made

    def _metadata(self, way: str) -> dict[str, Any]:
        base = self._base()
        here = is_loopback(parse_url(base).host)
        return {
            "client_name": "callgate",
            "redirect_uris": [self.redirect_uri],
            "grant_types": _GRANTS,
            "response_types": ["code"],
            "token_endpoint_auth_method": way,
            "application_type": "native" if here else "web",  # OC-9
            **({} if here else {"client_uri": base}),
        }

    def _readable_by(self, issuer: Issuer) -> bool:
        """Whether an issuer can read the document: on the internet, or both are on this machine. Such a name has to be
        an https URL, so without TLS it is the last resort.
        """
        base = parse_url(self._base())
        if not is_loopback(base.host):
            return base.secure
        return is_loopback(parse_url(issuer.issuer).host) and (base.secure or not issuer.registration_endpoint)


def _name(issuer: str, what: str) -> str:
    return msgspec.json.encode((issuer, what)).decode()


def _refused(status: int, code: Any, redirect_uri: str) -> UpstreamError:
    if code in ("invalid_redirect_uri", "invalid_client_metadata"):
        return UpstreamError(
            f"has an issuer that does not take `{redirect_uri}` as the address to come back to",
            hint="Register callgate there and set `auth.client_id`, or serve it at an `https` address.",
        )
    return UpstreamError(
        f"has an issuer at which callgate cannot register itself ({status})",
        hint="Register callgate there and set `auth.client_id`.",
    )
