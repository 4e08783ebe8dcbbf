"""A Databricks-like upstream: an MCP server with an issuer of its own, which writes down who did what.

The server takes only tokens of its issuer (or, with ``trusts``, assertions of that issuer), checks them like any
resource server, and logs the subject and the current actor of each request.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key

from callgate.identity.oauth.signing import SigningKeys
from tests.identity.provider import ec_key, sign
from tests.servers.mcp_http import ModernServer
from tests.servers.raw_http import Handler, Peer, RawServer, Request

CLIENT, SECRET = "callgate-at-lake", "s3cret:of+the lake"
Keys = Callable[[], Mapping[str, Key]]


def published(data_dir: Path) -> Keys:
    """The public keys of a gateway, by their id."""

    def keys() -> dict[str, Key]:
        found = SigningKeys(data_dir / "oauth" / "keys", 30 * 86400.0, time.time)
        found.refresh()
        return {str(each["kid"]): ECKey.import_key(each) for each in found.published()}

    return keys


def checked(token: str, keys: Mapping[str, Key]) -> dict[str, Any]:
    """Claims of a token whose signature and times hold; ValueError."""
    try:
        kid = str(msgspec.json.decode(_unpadded(token.split(".")[0]))["kid"])
        found = jws.deserialize_compact(token, keys[kid], algorithms=["ES256"])
    except (JoseError, KeyError, IndexError, msgspec.MsgspecError) as error:
        raise ValueError(f"no token of theirs: {type(error).__name__}") from None
    claims: dict[str, Any] = msgspec.json.decode(found.payload)
    if claims["exp"] <= time.time():
        raise ValueError("expired")
    return claims


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Lake:
    """``async with Lake(trusts) as lake``. ``mode`` is how the token endpoint answers, ``life`` the ``expires_in`` of
    its tokens; ``forms`` what it was asked, ``log`` the server's own log, ``wrong_audience`` breaks what it issues.
    """

    trusts: Mapping[str, Keys] = field(default_factory=dict)
    mode: str = "well"
    life: float | None = 3600
    wrong_audience: bool = False
    direct: bool = False
    server: Handler = field(default_factory=ModernServer)
    forms: list[dict[str, str]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    minted: list[str] = field(default_factory=list)
    open: list[Peer] = field(default_factory=list)

    async def __aenter__(self) -> Lake:
        self.idp = await RawServer(self._token).__aenter__()
        self.mcp = await RawServer(self._serve).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.open:
            peer.close()
        await self.mcp.stop()
        await self.idp.stop()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.idp.port}"

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.mcp.port}"

    def config(self, type: str, **more: Any) -> dict[str, Any]:
        """An entry of `servers`."""
        at = {"token_endpoint": f"{self.issuer}/token", "issuer": self.issuer, "client_id": CLIENT}
        return {"url": self.mcp.url, "auth": {"type": type, **(at if type != "assertion" else {}), **more}}

    def who(self, method: str = "tools/call") -> list[str]:
        """The subjects of the log."""
        return [entry["sub"] for entry in self.log if entry["method"] == method]

    # The issuer

    async def _token(self, request: Request, peer: Peer) -> None:
        form = {name: values[0] for name, values in parse_qs(request.body.decode(), keep_blank_values=True).items()}
        self.forms.append(form)
        if self.mode == "hang":
            self.open.append(peer)
            await peer.reader.read(1)
        elif self.mode == "garbage":
            peer.body(b"<html>a portal</html>", 200, "text/html")
        elif self.mode == "redirect":
            peer.body(b"", 307, more="location: http://127.0.0.1:1/elsewhere\r\n")
        elif self.mode != "well":
            said = {"error": self.mode, "error_description": f"no: {form.get('subject_token', '')}"}
            peer.json(said, 400)
        else:
            try:
                peer.json(self._granted(form, request))
            except ValueError as error:
                peer.json({"error": "invalid_grant", "error_description": str(error)}, 400)

    def _granted(self, form: dict[str, str], request: Request) -> dict[str, Any]:
        self._check_client(form, request)
        claims: dict[str, Any] = {"sub": CLIENT}
        token = form.get("subject_token") or form.get("assertion")
        if token:
            subject = self._from_trusted(token)
            claims = {name: subject[name] for name in ("sub", "act") if name in subject}
        audience = "https://another.example" if self.wrong_audience else form.get("resource", self.mcp.url)
        now = int(time.time())
        key = ec_key("lake")
        whole = {"iss": self.issuer, "aud": audience, "iat": now, "exp": now + 3600, "n": len(self.forms), **claims}
        value = sign(key, {"alg": "ES256", "kid": key.kid}, whole)
        self.minted.append(value)
        said = {"access_token": value, "token_type": "Bearer", "scope": form.get("scope", "")}
        return said if self.life is None else {**said, "expires_in": self.life}

    def _check_client(self, form: dict[str, str], request: Request) -> None:
        if "client_assertion" in form:
            claims = self._from_trusted(form["client_assertion"], CLIENT)
            if (claims["iss"], claims["sub"]) != (CLIENT, CLIENT):
                raise ValueError("another client")
            return
        basic = request.headers.get("authorization", "").partition(" ")[2]
        name, _, secret = base64.b64decode(basic).decode().partition(":")
        given = (unquote_plus(name), unquote_plus(secret)) if basic else (form["client_id"], form["client_secret"])
        if given != (CLIENT, SECRET):
            raise ValueError("who is this client")

    def _from_trusted(self, token: str, issuer: str = "") -> dict[str, Any]:
        said = msgspec.json.decode(_unpadded(token.split(".")[1]))
        claims = checked(token, self.trusts[issuer or said["iss"]]())
        audience = claims["aud"]
        if self.issuer not in ([audience] if isinstance(audience, str) else audience):
            raise ValueError("not for this issuer")
        return claims

    # The server

    async def _serve(self, request: Request, peer: Peer) -> None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            if token in self.revoked:
                raise ValueError("revoked")
            claims = self._presented(token)
        except (ValueError, KeyError) as error:
            self.refusals.append(str(error))
            peer.body(b"", 401, more='www-authenticate: Bearer error="invalid_token"\r\n')
            return
        method = request.message.get("method") if request.body else request.method
        self.log.append({**claims, "method": method})
        await self.server(request, peer)

    def _presented(self, token: str) -> dict[str, Any]:
        if self.direct:
            said = msgspec.json.decode(_unpadded(token.split(".")[1]))
            claims = checked(token, self.trusts[said["iss"]]())
            wanted = self.origin
        else:
            key = ec_key("lake")
            claims = checked(token, {"lake": key})
            wanted = self.mcp.url
        if claims["aud"] != wanted:
            raise ValueError(f"for {claims['aud']}")
        return claims
