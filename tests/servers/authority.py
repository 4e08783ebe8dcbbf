"""An authorization server and the MCP server that trusts it, on loopback, with every way to misbehave.

The authorization server checks what a real one checks: client, redirect URI, PKCE, each code and refresh token once.
The MCP server takes only its tokens, bound to the right key where they are.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey

from tests.servers.mcp_http import ModernServer
from tests.servers.raw_http import Handler, Peer, RawServer, Request

PRM = "/.well-known/oauth-protected-resource"
META = "/.well-known/oauth-authorization-server"
OIDC = "/.well-known/openid-configuration"
Form = dict[str, str]


@dataclass
class Authority:
    """``async with Authority() as authority``. ``meta`` and ``prm`` change the documents (``None`` removes a member),
    ``meta_at`` and ``prm_at`` are the paths where they are, ``challenge`` is what a 401 says. ``grants`` answers other
    grant types. ``scopes`` says which scopes a method needs. A token is made, and its answer waits for the ``gate``.
    """

    path: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    prm: dict[str, Any] = field(default_factory=dict)
    meta_at: str = META
    prm_at: str = f"{PRM}/mcp"
    challenge: str | None = 'Bearer resource_metadata="{prm}"'
    lists_to_all: bool = False
    iss: str | None = "right"
    life: float | None = 3600
    rotates: bool = True
    refreshes: bool = True
    given_scopes: str | None = None
    token_error: str = ""
    as_nonce: str = ""
    rs_nonce: str = ""
    kind: str = ""
    echo: bool = False
    clock: Callable[[], float] = time.time
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    redirects: bool = False
    registration: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]] | None = None
    grants: dict[str, Callable[[Form], dict[str, Any]]] = field(default_factory=dict)
    scopes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    server: Handler = field(default_factory=ModernServer)
    visits: list[str] = field(default_factory=list)
    asked: list[Form] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    revoked: list[Form] = field(default_factory=list)
    registered: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    refreshing: dict[str, dict[str, Any]] = field(default_factory=dict)
    minted: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    log: list[dict[str, Any]] = field(default_factory=list)
    _codes: dict[str, Form] = field(default_factory=dict)
    _proofs: set[str] = field(default_factory=set)

    async def __aenter__(self) -> Authority:
        self.gate.set()
        self.idp = await RawServer(self._issue).__aenter__()
        self.mcp = await RawServer(self._serve).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.mcp.stop()
        await self.idp.stop()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.idp.port}"

    @property
    def issuer(self) -> str:
        return self.origin + self.path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.mcp.port}/mcp"

    # What the test does.

    def browse(self, url: str) -> Form:
        """Sign in and agree, as the browser of the user: what comes back to the redirect URI."""
        at = urlsplit(url)
        asked = dict(parse_qsl(at.query, strict_parsing=True))
        self.asked.append(asked)
        assert f"{at.scheme}://{at.netloc}{at.path}" == f"{self.issuer}/authorize", url
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"]}
        if self.iss is not None:
            answer["iss"] = self.issuer if self.iss == "right" else self.iss
        return answer

    def revoke_all(self) -> None:
        """From now on the server takes none of the tokens that were given so far."""
        self.tokens.clear()

    # The authorization server.

    def metadata(self) -> dict[str, Any]:
        whole = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "authorization_response_iss_parameter_supported": True,
            **self.meta,
        }
        return {name: value for name, value in whole.items() if value is not None}

    async def _issue(self, request: Request, peer: Peer) -> None:
        target = request.target.partition("?")[0]
        self.visits.append(target)
        if self.redirects and target.startswith("/.well-known/"):
            peer.body(b"", 302, more=f"location: {self.origin}/moved\r\n")
        elif target == self.meta_at or target == "/moved":
            peer.json(self.metadata())
        elif target == f"{self.path}/token":
            await self._token(request, peer)
        elif target == f"{self.path}/register":
            self._register(request, peer)
        elif target == f"{self.path}/revoke":
            self.revoked.append(dict(parse_qsl(request.body.decode())))
            peer.body(b"")
        else:
            peer.body(b"", 404)

    def _register(self, request: Request, peer: Peer) -> None:
        wanted = request.message
        if self.registration is not None:
            status, answer = self.registration(wanted)
        else:
            status, answer = 201, {**wanted, "client_id": f"client-{secrets.token_hex(4)}"}
            if wanted["token_endpoint_auth_method"] != "none":
                answer["client_secret"] = secrets.token_hex(8)
        if "client_id" in answer:
            self.registered[answer["client_id"]] = {**wanted, **answer}
        peer.json(answer, status)

    async def _token(self, request: Request, peer: Peer) -> None:
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True))
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        if basic:
            id, _, secret = base64.b64decode(basic).decode().partition(":")
            form |= {"client_id": unquote_plus(id), "client_secret": unquote_plus(secret), "basic": "yes"}
        self.forms.append({**form, "dpop": request.headers.get("dpop", "")})
        try:
            if self.token_error:
                raise ValueError(self.token_error)
            thumbprint = self._proven(request, f"{self.issuer}/token", "", self.as_nonce)
            answer = self._granted(form, thumbprint)
            await self.gate.wait()
            peer.json(answer)
        except ValueError as error:
            nonce = f"dpop-nonce: {self.as_nonce}\r\n" if self.as_nonce else ""
            peer.json({"error": str(error), "error_description": f"secret words {form}"}, 400, nonce)

    def _granted(self, form: Form, thumbprint: str) -> dict[str, Any]:
        kind = form["grant_type"]
        if kind in self.grants:
            return self._minted(self.grants[kind](form), thumbprint, False)
        client = self.registered.get(form.get("client_id", ""))
        if client is not None and client.get("client_secret", "") != form.get("client_secret", ""):
            raise ValueError("invalid_client")
        if client is None and form.get("client_id", "") in self.registered:
            raise ValueError("invalid_client")
        if kind == "refresh_token":
            about = self.refreshing.get(form["refresh_token"])
            if about is None or form["refresh_token"] in self.used or about["client_id"] != form["client_id"]:
                raise ValueError("invalid_grant")
            if self.rotates:
                self.used.add(form["refresh_token"])
            return self._minted(about, thumbprint, self.rotates)
        if kind != "authorization_code":
            raise ValueError("unsupported_grant_type")
        asked = self._codes.pop(form["code"], None)
        if asked is None or any(asked[name] != form.get(name) for name in ("client_id", "redirect_uri")):
            raise ValueError("invalid_grant")
        digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if digest.decode() != asked["code_challenge"] or asked["code_challenge_method"] != "S256":
            raise ValueError("invalid_grant")
        about = {"client_id": asked["client_id"], "scope": asked.get("scope", ""), "resource": form.get("resource")}
        return self._minted(about, thumbprint, self.refreshes)

    def _minted(self, about: Mapping[str, Any], thumbprint: str, refresh: bool) -> dict[str, Any]:
        token = f"at-{secrets.token_hex(16)}"
        self.minted.append(token)
        scope = about.get("scope", "") if self.given_scopes is None else self.given_scopes
        self.tokens[token] = {**about, "scope": scope, "jkt": thumbprint}
        answer: dict[str, Any] = {
            "access_token": token,
            "token_type": self.kind or ("DPoP" if thumbprint else "Bearer"),
        }
        if self.life is not None:
            answer |= {"expires_in": self.life}
        if scope:
            answer["scope"] = scope
        if refresh:
            again = f"rt-{secrets.token_hex(16)}"
            self.minted.append(again)
            self.refreshing[again] = dict(about)
            answer["refresh_token"] = again
        return {**answer, **about.get("answer", {})}

    # The MCP server.

    async def _serve(self, request: Request, peer: Peer) -> None:
        target = request.target
        if target == self.prm_at:
            document = {"resource": self.url, "authorization_servers": [self.issuer], **self.prm}
            self.visits.append(target)
            peer.json({name: value for name, value in document.items() if value is not None})
        elif target != "/mcp":
            self.visits.append(target)
            peer.body(b"", 404)
        else:
            await self._guarded(request, peer)

    async def _guarded(self, request: Request, peer: Peer) -> None:
        method = request.message.get("method", "") if request.body else request.method
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if token:
            self.shown.append(token)
        about = self.tokens.get(token)
        if about is None and self.lists_to_all and method != "tools/call":
            return await self.server(request, peer)
        if about is None or (scheme == "DPoP") != bool(about["jkt"]):
            return self._refuse(peer, 401, self.challenge)
        if about["jkt"]:
            try:
                if self._proven(request, self.url, token, self.rs_nonce) != about["jkt"]:
                    raise ValueError("invalid_dpop_proof")
            except ValueError as error:
                return self._refuse(peer, 401, f'DPoP error="{error}"', self.rs_nonce)
        wanted = self.scopes.get(method, ())
        if not set(wanted) <= set(about["scope"].split()):
            words = " ".join(wanted)
            return self._refuse(peer, 403, f'Bearer error="insufficient_scope", scope="{words}"')
        self.log.append({"method": method, "token": token, **about})
        if self.echo and method == "tools/call":
            said = {"content": [{"type": "text", "text": f"you sent {token}"}], "resultType": "complete"}
            return peer.json({"jsonrpc": "2.0", "id": request.message["id"], "result": said})
        await self.server(request, peer)

    def _refuse(self, peer: Peer, status: int, challenge: str | None, nonce: str = "") -> None:
        at = f"http://127.0.0.1:{self.mcp.port}{self.prm_at}"
        lines = f"www-authenticate: {challenge.replace('{prm}', at)}\r\n" if challenge else ""
        peer.body(b"", status, more=lines + (f"dpop-nonce: {nonce}\r\n" if nonce else ""))

    def _proven(self, request: Request, url: str, token: str, nonce: str) -> str:
        """The thumbprint of the key of a proof; ValueError where it does not hold."""
        proof = request.headers.get("dpop")
        if proof is None:
            return ""
        header = json.loads(_unpadded(proof.split(".")[0]))
        key = ECKey.import_key(header["jwk"])
        claims = json.loads(jws.deserialize_compact(proof, key, algorithms=["ES256"]).payload)
        digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        good = (
            header["typ"] == "dpop+jwt"
            and "d" not in header["jwk"]
            and (claims["htm"], claims["htu"]) == (request.method, url)
            and abs(claims["iat"] - self.clock()) < 300
            and claims["jti"] not in self._proofs
            and claims.get("ath") == (digest if token else None)
        )
        if not good:
            raise ValueError("invalid_dpop_proof")
        self._proofs.add(claims["jti"])
        if nonce and claims.get("nonce") != nonce:
            raise ValueError("use_dpop_nonce")
        return key.thumbprint()


def query(params: Mapping[str, str]) -> str:
    return urlencode(params)


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
