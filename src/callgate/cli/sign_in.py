"""Signing in at a gateway: the requests that a public client makes (OAuth 2.1, RFC 7636, RFC 8628, RFC 9207, RFC 9728).

Every endpoint that is used lies below the URL of the gateway, so what it issued goes back to it and to nobody else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeGuard
from urllib.parse import urlencode

import msgspec

from callgate.cli.kept import KeptSignIns, SignedIn
from callgate.cli.receiver import Receiver
from callgate.cli.remote import Remote, local
from callgate.egress import parse_url
from callgate.errors import CallgateError, ConfigError, Denied, Unauthenticated, UpstreamError, UsageError

CLIENT = "callgate-cli"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
RESOURCE = "/.well-known/oauth-protected-resource"
SERVER = "/.well-known/oauth-authorization-server"
#: How long somebody may take to sign in with a browser (seconds).
PATIENCE = 300.0
#: A token that ends so soon (seconds) is refreshed before it is used.
SOON = 30.0
#: Between two questions of the device grant, where the gateway does not say (RFC 8628, section 3.2), and its bounds.
INTERVAL, SLOWER, SLOWEST = 5.0, 5.0, 60.0
_AGAIN = "Run `callgate login`."

Show = Callable[[str], Awaitable[None]]


class Gateway(msgspec.Struct, frozen=True):
    """What a gateway says of its token service; all endpoints lie below ``url``, empty where there is none. ``scopes``
    are those to begin with (``scopes_supported`` of the resource).
    """

    url: str
    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False
    code_challenge_methods_supported: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


async def find(remote: Remote) -> Gateway:
    """Find the token service of a gateway by nothing but its URL (rules OC-1, OC-2). Raises UsageError where nobody can
    sign in, UpstreamError where what it says does not hold.
    """
    url = remote.base
    if not url.startswith("https://") and not local(url):
        hint = "Use https://, or a gateway on this machine."
        raise UsageError("Nobody signs in over plain http: others could read the token.", hint=hint)
    resource = await _document(remote, url + RESOURCE)
    if resource.get("resource") != url:
        told = resource.get("resource")
        near = f"Name it with --url {told}." if _plain(told) else ""
        raise UpstreamError(f"The gateway at {url} calls itself something else.", hint=near)
    document = await _document(remote, url + SERVER)
    issuer, known = document.get("issuer"), resource.get("authorization_servers")
    if not isinstance(issuer, str) or not isinstance(known, list) or issuer not in known:
        raise UpstreamError(f"The gateway at {url} does not name its own token service.")
    if issuer != url:  # what an issuer says of itself stands where its name leads to
        document = await _document(remote, _metadata_url(issuer))
    return _checked({**document, "scopes": resource.get("scopes_supported", ())}, issuer, url)


def _metadata_url(issuer: str) -> str:
    """Where the metadata of an issuer is: the well-known path goes before its own (RFC 8414, section 3.1)."""
    try:
        address = parse_url(issuer)
    except ConfigError:
        raise UpstreamError("The name of the gateway's token service is no URL.") from None
    return address.origin + SERVER + address.target.rstrip("/")


def _checked(document: Mapping[str, Any], issuer: str, url: str) -> Gateway:
    if document.get("issuer") != issuer:
        raise UpstreamError(f"The token service of {url} gives itself another name than {url} gives it.")
    try:
        gateway = msgspec.convert({**document, "url": url}, Gateway)
    except msgspec.ValidationError:
        raise UpstreamError(f"What {url} says of its token service cannot be understood.") from None
    for name in Gateway.__struct_fields__:
        where = getattr(gateway, name)
        if name.endswith("_endpoint") and where and not (_plain(where) and where.startswith(f"{url}/")):
            raise UpstreamError(f"The `{name}` of {url} is at another place, and no token goes there.")
    return gateway


async def with_browser(remote: Remote, gateway: Gateway, scope: str, show: Show) -> SignedIn:
    """The sign-in of somebody whose browser ``show`` sends to a URL. Raises Unauthenticated, Denied."""
    if not gateway.authorization_endpoint or "S256" not in gateway.code_challenge_methods_supported:
        raise UsageError(f"Nobody can sign in with a browser at {gateway.url}.", hint="Try `callgate login --device`.")
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    async with Receiver(gateway.issuer, gateway.authorization_response_iss_parameter_supported) as receiver:
        query = {
            "response_type": "code", "client_id": CLIENT, "redirect_uri": receiver.redirect_uri,
            "state": receiver.state, "code_challenge": challenge, "code_challenge_method": "S256",
            "resource": gateway.url, **({"scope": scope} if scope else {}),
        }  # fmt: skip
        joint = "&" if "?" in gateway.authorization_endpoint else "?"
        await show(f"{gateway.authorization_endpoint}{joint}{urlencode(query)}")
        code = await receiver.code(PATIENCE)
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": receiver.redirect_uri}
        return _kept(gateway, await _post(remote, gateway.token_endpoint, {**form, "code_verifier": verifier}), scope)


async def with_device(
    remote: Remote, gateway: Gateway, scope: str, show: Callable[[str, str], None], pause: float | None = None
) -> SignedIn:
    """The sign-in of somebody with a browser elsewhere: ``show`` gets the URL and the code to type there.

    ``pause`` is seconds between two questions; default: what the gateway says. Raises Unauthenticated, Denied.
    """
    if not gateway.device_authorization_endpoint:
        raise UsageError(f"Nobody can sign in with a device code at {gateway.url}.")
    asked = {"resource": gateway.url, **({"scope": scope} if scope else {})}
    begun = await _post(remote, gateway.device_authorization_endpoint, asked)
    where = begun.get("verification_uri_complete") or begun.get("verification_uri", "")
    user_code, device_code = begun.get("user_code"), begun.get("device_code")
    if not _plain(user_code) or not _plain(device_code):
        raise UpstreamError(f"The gateway at {gateway.url} gave a code that cannot be used.")
    if not _plain(where) or not where.startswith(f"{gateway.url}/"):
        raise UpstreamError(f"The gateway at {gateway.url} sends people to another place.")
    show(where, user_code)
    form = {"grant_type": DEVICE, "device_code": device_code}
    until = time.monotonic() + _seconds(begun.get("expires_in"), PATIENCE)
    wait = _seconds(begun.get("interval"), INTERVAL) if pause is None else pause
    while time.monotonic() < until:
        await asyncio.sleep(wait)
        try:
            said = await _post(remote, gateway.token_endpoint, form)
        except _Refused as refused:
            if refused.error == "slow_down":
                wait = min(wait + SLOWER, SLOWEST)
            elif refused.error != "authorization_pending":
                raise
        except UpstreamError:
            wait = min(wait * 2, SLOWEST)  # the gateway was away for a moment (RFC 8628, section 3.5)
        else:
            return _kept(gateway, said, scope)
    raise Unauthenticated("Nobody typed the code in time.", hint=_AGAIN)


async def token_for(remote: Remote) -> str | None:
    """The token of whoever is signed in at a gateway, refreshed when it is about to end; ``None`` where nobody is.

    Raises Unauthenticated when the sign-in has ended; it is forgotten then.
    """
    kept = KeptSignIns()
    found = kept.get(remote.base)
    if found is None or found.expires - time.time() > SOON:
        return found.access_token if found is not None else None
    async with kept.turn():
        found = kept.get(remote.base)  # another command may have been first
        if found is None or found.expires - time.time() > SOON:
            return found.access_token if found is not None else None
        try:
            fresh = await _refreshed(remote, found)
        except Unauthenticated:
            kept.drop(remote.base)
            raise
        kept.put(fresh)
        return fresh.access_token


async def _refreshed(remote: Remote, found: SignedIn) -> SignedIn:
    if not found.refresh_token:
        raise Unauthenticated(f"You are not signed in at {found.url} any more.", hint=_AGAIN)
    form = {"grant_type": "refresh_token", "refresh_token": found.refresh_token, "resource": found.url}
    try:
        said = await _post(remote, found.token_endpoint, form)
    except _Refused as refused:
        raise Unauthenticated(f"You are not signed in at {found.url} any more.", hint=_AGAIN) from refused
    token, expires, scope = _token(said, found.scope)
    refresh = said.get("refresh_token")
    return msgspec.structs.replace(
        found, access_token=token, expires=expires, scope=scope,
        refresh_token=refresh if isinstance(refresh, str) else found.refresh_token,
    )  # fmt: skip


async def sign_out(remote: Remote, found: SignedIn) -> None:
    """Have the gateway end what it issued. Raises UpstreamError when it cannot be reached."""
    for token in (found.refresh_token, found.access_token):
        if token and found.revocation_endpoint:
            await _post(remote, found.revocation_endpoint, {"token": token})


class _Refused(Unauthenticated):
    """The token service refused, with this code (RFC 6749, section 5.2)."""

    def __init__(self, error: str) -> None:
        super().__init__("The gateway did not accept the sign-in.", hint=_AGAIN)
        self.error = error


async def _post(remote: Remote, url: str, form: Mapping[str, str]) -> dict[str, Any]:
    """What the token service answers. Raises what its refusal stands for, UpstreamError."""
    body = urlencode({"client_id": CLIENT, **form}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    response = await remote.send("POST", url, headers, body)
    said = _object(response.body)
    error = said.get("error")
    if response.status == 200:
        return said
    if response.status in (429, 503) or not isinstance(error, str):
        raise UpstreamError(f"The token service at {remote.base} answered {response.status}.", hint="Try again later.")
    raise _refusal(error, said)


def _refusal(error: str, said: Mapping[str, Any]) -> CallgateError:
    if error == "access_denied":
        return Denied("The sign-in was refused.", hint="Whoever signs in has to agree on the page of the gateway.")
    if error == "expired_token":
        return Unauthenticated("Nobody typed the code in time.", hint=_AGAIN)
    if error in ("invalid_dpop_proof", "use_dpop_nonce"):
        return UsageError("The gateway wants tokens that are bound to a key; the commands of callgate have none.")
    if error in ("invalid_scope", "invalid_target"):
        return UsageError(str(said.get("error_description") or "The gateway does not give such a token."))
    return _Refused(error)


def _kept(gateway: Gateway, said: Mapping[str, Any], scope: str) -> SignedIn:
    token, expires, granted = _token(said, scope)
    refresh = said.get("refresh_token")
    return SignedIn(
        gateway.url, gateway.issuer, gateway.token_endpoint, token, expires,
        refresh if isinstance(refresh, str) else "", granted, gateway.revocation_endpoint,
    )  # fmt: skip


def _token(said: Mapping[str, Any], scope: str) -> tuple[str, float, str]:
    """Access token, its end, its scope."""
    token, granted = said.get("access_token"), said.get("scope", scope)
    if not _plain(token) or str(said.get("token_type", "")).lower() != "bearer":
        raise UpstreamError("The gateway answered the sign-in without a token that callgate can use.")
    return token, time.time() + _seconds(said.get("expires_in"), 60.0), granted if isinstance(granted, str) else scope


async def _document(remote: Remote, url: str) -> dict[str, Any]:
    response = await remote.send("GET", url, {"accept": "application/json"})
    if response.status == 404:
        raise UsageError(f"The gateway at {remote.base} signs nobody in.", hint="Use --token (CALLGATE_TOKEN).")
    document = _object(response.body) if response.status == 200 else {}
    if not document:
        raise UpstreamError(f"What the gateway at {remote.base} says of itself cannot be understood.")
    return document


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _seconds(value: object, default: float) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
    return float(value) if plain else default  # type: ignore[arg-type]


def _plain(said: object) -> TypeGuard[str]:
    """Whether it is one word, which can stand on a terminal and in a header as it is."""
    return isinstance(said, str) and said != "" and said.isascii() and said.isprintable() and " " not in said
