"""What must agree in a server's `auth`: a credential that cannot work, or would go astray, is a mistake in the file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from callgate.errors import ConfigError

from .document import Document
from .model import Server, UpstreamAuth
from .node import Path_
from .references import is_reference

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS = re.compile(r"(?i)(host|connection|cookie|content-.*|transfer-encoding|accept|user-agent|mcp-.*)\Z")
_AT_ISSUER = frozenset(
    {"token_endpoint", "issuer", "client_id", "client_secret", "client_auth", "scope", "resource", "subject_token"}
)
#: Keys that say nothing for a type.
_IDLE = {
    "assertion": _AT_ISSUER | {"subject_issuers"},
    "exchange": frozenset[str](),
    "on_behalf_of": frozenset({"audience"}),
    "client_credentials": frozenset({"subject_claim", "subject_token", "subject_issuers"}),
}
NAMES_CALLERS = frozenset({"assertion", "exchange", "on_behalf_of"})


def check_auth(at: Path_, server: Server, document: Document) -> Iterator[ConfigError]:
    """Every problem of one server's `auth`."""
    auth = server.auth
    if auth.type == "none":
        if auth != UpstreamAuth():
            yield document.wrong("`auth` needs a `type`", at, hint="add `type: assertion` or another one", key=True)
        return
    blank = UpstreamAuth()
    for key in sorted(_IDLE[auth.type]):
        if getattr(auth, key) != getattr(blank, key):
            said = f"`{key}` has no effect with `type: {auth.type}`"
            yield document.wrong(said, (*at, key), hint=f"remove `{key}`", key=True)
    yield from _header(at, server, document)
    if auth.type in NAMES_CALLERS and server.isolation == "shared":
        hint = "remove `isolation: shared`"
        said = "callers that are shown to the server by name cannot share one session"
        yield document.wrong(said, (*at[:-1], "isolation"), hint=hint)
    if auth.type != "assertion":
        yield from _issuer(at, auth, document)


def check_apart(servers: Mapping[str, Server], document: Document) -> Iterator[ConfigError]:
    """Servers behind one origin are not one server: what is asserted to one must not hold at the other."""
    found: dict[str, tuple[str, str]] = {}
    for name, server in servers.items():
        url = server.url or ""
        if server.auth.type != "assertion" or server.auth.audience or _url_fault(url):
            continue
        other, its_url = found.setdefault(_origin(url), (name, url))
        if its_url != url:
            said = f"what is asserted to this server would hold at `{other}` too, which has the same origin"
            hint = "give each an `audience`, and have each accept only its own"
            yield document.wrong(said, ("servers", name, "auth"), hint=hint, key=True)


def _url_fault(url: str) -> bool:
    try:
        return not _origin(url)
    except ValueError:
        return True


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}" if parts.hostname else ""


def _header(at: Path_, server: Server, document: Document) -> Iterator[ConfigError]:
    name = server.auth.header or "Authorization"
    if not _TOKEN.fullmatch(name) or _OURS.match(name):
        hint = "write a name such as `X-Caller`"
        yield document.wrong(f"`{name}` cannot be the header of a token", (*at, "header"), hint=hint)
    for each in server.headers:
        if each.lower() == name.lower():
            where = (*at[:-1], "headers", each)
            yield document.wrong(f"`auth` sets the header `{each}` already", where, hint="remove one of them", key=True)


def _issuer(at: Path_, auth: UpstreamAuth, document: Document) -> Iterator[ConfigError]:
    for key in ("token_endpoint", "client_id"):
        if not getattr(auth, key):
            yield document.wrong(f"`type: {auth.type}` needs a `{key}`", at, hint=f"add `{key}:`", key=True)
    if auth.token_endpoint and (why := _endpoint_fault(auth.token_endpoint)):
        hint = "write it like `https://login.example.org/token`"
        yield document.wrong(f"`token_endpoint` {why}", (*at, "token_endpoint"), hint=hint)
    yield from _client(at, auth, document)
    own = auth.subject_token == "caller" or (auth.type == "on_behalf_of" and auth.subject_token is None)
    if own and auth.type != "client_credentials" and not auth.subject_issuers:
        hint = "add `subject_issuers:` with the `issuer` of an entry of `identity.jwt`"
        yield document.wrong("whose tokens may go to the token endpoint is not said", at, hint=hint, key=True)
    if auth.subject_issuers and not own and auth.type != "client_credentials":
        hint = "remove `subject_issuers`, or add `subject_token: caller`"
        yield document.wrong("`subject_issuers` has no effect", (*at, "subject_issuers"), hint=hint, key=True)


def _client(at: Path_, auth: UpstreamAuth, document: Document) -> Iterator[ConfigError]:
    secret, way = auth.client_secret, auth.client_auth
    if secret is not None and not is_reference(secret):
        hint = "write `secret:NAME`, `env:NAME` or `file:PATH`, and replace the secret that stood here"
        yield document.wrong("`client_secret` must be a reference, not the secret", (*at, "client_secret"), hint=hint)
    if way in ("client_secret_basic", "client_secret_post") and secret is None:
        yield document.wrong(f"`{way}` needs a `client_secret`", (*at, "client_auth"), hint="add `client_secret:`")
    if way in ("private_key_jwt", "none") and secret is not None:
        hint = "remove it, or `client_auth`"
        yield document.wrong(f"`{way}` needs no `client_secret`", (*at, "client_secret"), hint=hint, key=True)


def _endpoint_fault(text: str) -> str:
    """What is wrong with the URL of a token endpoint, or ``""``: secrets go there."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if any(sign.isspace() or ord(sign) < 32 for sign in text) or not host or parts.username is not None:
        return "is not the URL of a host"
    if parts.scheme == "https" or (parts.scheme == "http" and _loopback(host)):
        return ""
    return "must begin with `https://`"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
