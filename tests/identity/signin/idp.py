"""An OpenID provider on loopback that does what a test says, and a browser with a cookie jar that walks to it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urljoin, urlsplit

from tests.fuzz.messages import head
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, Wire, allow
from tests.gateway.upstreams import Modern, Script, http, serve, text
from tests.identity.provider import Clock, Provider, ec_key, sign

CLIENT, SECRET = "callgate at the provider", "s3cret: %+"
Json = dict[str, Any]


class OpenIdProvider(Provider):
    """Whoever comes to its authorization endpoint is ``user``. Everything it says can be changed by a test: the
    discovery document (``said``), the redirect (``back``), the token answer (``answer``), header and claims of the ID
    token (a change to ``None`` removes the member).
    """

    def __init__(self, user: str = "alice") -> None:
        super().__init__(Clock(), ec_key("idp key"))
        self.user = user
        self.key = ec_key("idp key")
        self.said: Json = {}
        self.back: Json = {}
        self.answer: Json = {}
        self.header: Json = {}
        self.changes: Json = {}
        self.info: Json | None = None
        self.status: dict[str, int] = {}
        self.asked: list[dict[str, str]] = []
        self.posted: list[tuple[dict[str, str], dict[str, str]]] = []
        self.paths: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.refresh = ""
        self.pause = 0.0
        self.audience = ""  # that client assertions must have

    def discovery(self) -> Json:
        at = self.issuer
        known = {
            "issuer": at, "authorization_endpoint": f"{at}/authorize", "token_endpoint": f"{at}/token",
            "jwks_uri": f"{at}/jwks", "code_challenge_methods_supported": ["S256"],
        }  # fmt: skip
        if self.info is not None:
            known["userinfo_endpoint"] = f"{at}/userinfo"
        return merged(known, self.said)

    def id_claims(self, nonce: str | None, access_token: str) -> Json:
        now = int(self.clock())
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": self.user, "iat": now, "exp": now + 300, "nonce": nonce,
            "auth_time": now - 5, "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            "name": self.user.title(), "roles": ["dev"], "groups": ["staff"],
        }  # fmt: skip
        return merged(claims, self.changes)

    def id_token(self, nonce: str | None, access_token: str, /) -> str:
        header = merged({"alg": "ES256", "kid": self.key.kid}, self.header)
        return sign(self.key, header, self.id_claims(nonce, access_token))

    def pages(self) -> dict[str, Callable[[str, Mapping[str, str], bytes], tuple[int, Json, str]]]:
        return {
            "/.well-known/openid-configuration": lambda query, headers, body: (200, self.discovery(), ""),
            "/jwks": lambda query, headers, body: (200, {"keys": self.keys}, ""),
            "/authorize": self._authorize,
            "/token": self._token,
            "/userinfo": lambda query, headers, body: (200, self.info or {}, ""),
        }

    def _authorize(self, query: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Json, str]:
        asked = dict(parse_qsl(query, strict_parsing=True))
        self.asked.append(asked)
        code = secrets.token_urlsafe(12)
        self.codes[code] = asked
        back = merged({"code": code, "state": asked["state"]}, self.back)
        return 302, {}, f"{asked['redirect_uri']}?{urlencode(back)}"

    def _token(self, query: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Json, str]:
        form = dict(parse_qsl(body.decode(), strict_parsing=True))
        self.posted.append((form, dict(headers)))
        if self.audience and claims_of(form["client_assertion"])["aud"] != self.audience:
            return 401, {"error": "invalid_client"}, ""
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh:
                return 400, {"error": "invalid_grant"}, ""
            return self._tokens(None)
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or not proves(form.get("code_verifier", ""), asked["code_challenge"]):
            return 400, {"error": "invalid_grant", "error_description": "<b>no</b>"}, ""
        return self._tokens(asked["nonce"])

    def _tokens(self, nonce: str | None) -> tuple[int, Json, str]:
        access = secrets.token_urlsafe(12)
        answer: Json = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        answer["id_token"] = self.id_token(nonce, access)
        if self.refresh:
            answer["refresh_token"] = self.refresh = f"refresh {secrets.token_urlsafe(8)}".replace(" ", "-")
        return 200, merged(answer, self.answer), ""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            path, _, query = first.split(" ")[1].partition("?")
            self.paths.append(path)
            await asyncio.sleep(self.pause)
            answer: tuple[int, Json, str] = (self.status.get(path, 0), {}, "")
            status, said, location = answer
            if not status:
                status, said, location = self.pages()[path](query, headers, body)
            content = json.dumps(said).encode()
            more = f"Location: {location}\r\n" if location else ""
            fixed = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n"
            writer.write(f"HTTP/1.1 {status} X\r\n{fixed}{more}\r\n".encode() + content)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client gave up
        finally:
            writer.close()

    @property
    def client(self) -> tuple[str, str]:
        """Who came with the last token request, in the header."""
        pair = base64.b64decode(self.posted[-1][1]["authorization"].removeprefix("Basic ")).decode()
        id, _, secret = pair.partition(":")
        return unquote_plus(id), unquote_plus(secret)


def claims_of(token: str) -> Json:
    body = token.split(".")[1]
    found: Json = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def proves(verifier: str, challenge: str) -> bool:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode() == challenge


def merged(known: Json, changes: Json) -> Json:
    return {name: value for name, value in {**known, **changes}.items() if value is not None}


class Browser:
    """Follows redirects and keeps cookies, by host as browsers do: the port does not tell them apart."""

    def __init__(self, ports: Mapping[str, int] | None = None) -> None:
        self.jar: dict[str, dict[str, str]] = {}
        self.ports = dict(ports or {})
        self.seen: list[str] = []
        self.set: dict[str, str] = {}

    def cookies(self, url: str) -> dict[str, str]:
        return self.jar.setdefault(urlsplit(url).hostname or "", {})

    async def get(self, url: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"") -> Reply:
        """One request."""
        at = urlsplit(url)
        self.seen.append(url)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies(url).items())
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        lines = [("Host", at.netloc), *([("Cookie", cookies)] if cookies else []), *headers]
        if body:
            lines.append(("Content-Length", str(len(body))))
        port = self.ports.get(at.netloc) or at.port or 80
        async with Wire(*await asyncio.open_connection("127.0.0.1", port)) as wire:
            wire.send(head(f"{method} {target} HTTP/1.1", lines) + body)
            text = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
            first, *fields = text.split("\r\n")[:-2]
            pairs = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
            content = await wire.reader.readexactly(int(dict(pairs).get("content-length", "0")))
        self._keep(url, [value for name, value in pairs if name == "set-cookie"])
        return Reply(int(first.split(" ")[1]), dict(pairs), content)

    def _keep(self, url: str, lines: list[str]) -> None:
        for line in lines:
            for name, morsel in SimpleCookie(line).items():
                self.set[name] = line
                if morsel["max-age"] == "0":
                    self.cookies(url).pop(name, None)
                else:
                    self.cookies(url)[name] = morsel.value

    async def go(self, url: str, *, until: str = "") -> Reply:
        """Follow redirects; stop before the address that contains ``until``, which is then in ``at``."""
        for _ in range(12):
            reply = await self.get(url)
            self.at = url
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            self.at = url = urljoin(url, reply.headers["location"])
            if until and until in url:
                return reply
        raise AssertionError(f"redirects without end: {self.seen}")

    async def post(self, url: str, fields: Mapping[str, str], *headers: tuple[str, str]) -> Reply:
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        return await self.get(url, kind, *headers, method="POST", body=urlencode(fields).encode())


class Lobby(Stand):
    """The stand with people who sign in at ``idp``."""

    idp: OpenIdProvider
    other: OpenIdProvider

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, path: str = "/oauth/sign-in", **query: str) -> str:
        return self.base + path + (f"?{urlencode(query)}" if query else "")

    async def sign_in(self, browser: Browser | None = None, **query: str) -> Browser:
        browser = browser or Browser()
        reply = await browser.go(self.url(**query))
        assert reply.status == 200, reply
        return browser

    async def person(self, browser: Browser) -> Any:
        return await self.house.people.person(browser.cookies(self.base))


def provider(idp: OpenIdProvider, **more: Any) -> Json:
    return merged({"issuer": idp.issuer, "client_id": CLIENT, "client_secret": "env:IDP_SECRET"}, more)


@asynccontextmanager
async def lobby(folder: Path, *, two: bool = False, settings: Json | None = None, **more: Any) -> AsyncIterator[Lobby]:
    """A gateway where people sign in at ``main`` (with ``two`` also at ``other``); ``more`` changes ``main``."""
    script = Script({"hello": text("hello")})
    async with OpenIdProvider() as idp, OpenIdProvider("mallory") as other, serve(Modern(script)) as server:
        stand = Lobby(folder, {"u": http(server, "modern")})
        stand.idp, stand.other = idp, other
        providers = {"main": provider(idp, **more)}
        if two:
            providers["other"] = provider(other, title="Other & Sons")
        policy = {"version": 1, "default": "deny", "rules": [allow("*/*", to={"roles": ["dev"]})]}
        stand.write(identity={"oauth": {}, "providers": providers}, policy=policy, **(settings or {}))
        async with stand:
            yield stand
