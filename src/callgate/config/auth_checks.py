"""What must agree in a server's `auth`: a credential that cannot work, or would go astray, is a mistake in the file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from callgate.errors import ConfigError, nearest

from .document import Document
from .model import Server, Settings
from .model_auth import UpstreamAuth
from .node import Path_
from .references import is_reference

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS = re.compile(r"(?i)(host|connection|cookie|content-.*|transfer-encoding|accept|user-agent|mcp-.*)\Z")
_CLIENT = frozenset({"issuer", "client_id", "client_secret", "client_auth", "client_key", "scope", "resource"})
_EXCHANGE = _CLIENT | {"token_endpoint", "audience", "subject_claim", "subject_token", "subject_issuers", "dpop"}
_SHOWN = frozenset({"type", "header", "lifetime"})
#: Keys that mean something for a type.
_MEANT = {
    "assertion": _SHOWN | {"audience", "subject_claim"},
    "exchange": _SHOWN | _EXCHANGE,
    "on_behalf_of": _SHOWN | _EXCHANGE - {"audience"},
    "client_credentials": _SHOWN | _CLIENT | {"token_endpoint", "audience", "dpop"},
    "oauth": _SHOWN | _CLIENT | {"through", "dpop", "pkce", "authorize_params"},
    "enterprise": _SHOWN
    | _CLIENT
    | {"token_endpoint", "subject_token", "subject_issuers", "through", "dpop", "provider", "assertion_file"},
    "workload": _SHOWN | _CLIENT - {"client_secret", "client_auth", "client_key"}
    | {"token_endpoint", "audience", "dpop", "assertion_file"},
}  # fmt: skip
NAMES_CALLERS = frozenset({"assertion", "exchange", "on_behalf_of", "oauth", "enterprise"})
#: What must be said for a type; all else is found through the server.
_NEEDS = {
    "exchange": ("token_endpoint", "client_id"),
    "on_behalf_of": ("token_endpoint", "client_id"),
    "client_credentials": ("client_id",),
    "enterprise": ("provider", "client_id"),
    "workload": ("assertion_file",),
}
_AUTHORIZATION = frozenset(
    {
        "response_type", "client_id", "redirect_uri", "state", "scope", "code_challenge", "code_challenge_method",
        "resource", "dpop_jkt", "request", "request_uri", "response_mode",
    }
)  # fmt: skip


def check_auth(at: Path_, server: Server, document: Document) -> Iterator[ConfigError]:
    """Every problem of one server's `auth`."""
    auth = server.auth
    if auth.type == "none":
        if auth != UpstreamAuth():
            yield document.wrong("`auth` needs a `type`", at, hint="add `type: assertion` or another one", key=True)
        return
    blank = UpstreamAuth()
    for key in auth.__struct_fields__:
        if key not in _MEANT[auth.type] and getattr(auth, key) != getattr(blank, key):
            said = f"`{key}` has no effect with `type: {auth.type}`"
            yield document.wrong(said, (*at, key), hint=f"remove `{key}`", key=True)
    yield from _header(at, server, document)
    if auth.type in NAMES_CALLERS and server.isolation == "shared":
        hint = "remove `isolation: shared`"
        said = "callers that are shown to the server by name cannot share one session"
        yield document.wrong(said, (*at[:-1], "isolation"), hint=hint)
    if auth.type != "assertion":
        yield from _issuer(at, auth, document)
        yield from _proof(at, auth, document)


def check_providers(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Providers that servers rely on must be there."""
    known = settings.identity.providers
    for name, server in settings.servers.items():
        wanted = server.auth.provider
        if wanted is not None and wanted not in known:
            close = nearest(wanted, known)
            hint = f"did you mean `{close}`?" if close else "add it to `identity.providers`"
            yield document.wrong(
                f"there is no identity provider `{wanted}`", ("servers", name, "auth", "provider"), hint=hint
            )


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
    for key in _NEEDS.get(auth.type, ()):
        if not getattr(auth, key):
            yield document.wrong(f"`type: {auth.type}` needs a `{key}`", at, hint=f"add `{key}:`", key=True)
    for key in ("token_endpoint", "issuer"):
        url = getattr(auth, key)
        # Without a token endpoint the issuer is where secrets go; else it is a name and nothing more.
        named = key == "issuer" and (auth.token_endpoint or auth.type in ("exchange", "on_behalf_of"))
        if url and not named and (why := endpoint_fault(url)):
            hint = "write it like `https://login.example.org/token`"
            yield document.wrong(f"`{key}` {why}", (*at, key), hint=hint)
    yield from _client(at, auth, document)
    own = auth.subject_token == "caller" or (auth.type == "on_behalf_of" and auth.subject_token is None)
    takes = auth.type in ("exchange", "on_behalf_of", "enterprise")
    if own and takes and not auth.subject_issuers:
        hint = "add `subject_issuers:` with the `issuer` of an entry of `identity.jwt`"
        yield document.wrong("whose tokens may go to the token endpoint is not said", at, hint=hint, key=True)
    if auth.subject_issuers and not own and takes:
        hint = "remove `subject_issuers`, or add `subject_token: caller`"
        yield document.wrong("`subject_issuers` has no effect", (*at, "subject_issuers"), hint=hint, key=True)
    if auth.type == "enterprise" and auth.subject_token == "assertion":
        hint = "remove it: the ID token of the sign-in is exchanged, or write `caller`"
        yield document.wrong("an assertion by callgate is no ID token", (*at, "subject_token"), hint=hint)


def _proof(at: Path_, auth: UpstreamAuth, document: Document) -> Iterator[ConfigError]:
    if auth.dpop and auth.header is not None and auth.header.lower() != "authorization":
        hint = "remove `header`, or `dpop`"
        yield document.wrong("tokens that are bound to a key are shown as `Authorization`", (*at, "header"), hint=hint)
    if auth.pkce == "assumed" and not auth.issuer:
        hint = "add the `issuer` of which you know that"
        yield document.wrong("`pkce: assumed` needs an `issuer`", (*at, "pkce"), hint=hint)
    for name in sorted(_AUTHORIZATION & auth.authorize_params.keys()):
        hint = "remove it"
        yield document.wrong(f"callgate sets `{name}` itself", (*at, "authorize_params", name), hint=hint, key=True)


def _client(at: Path_, auth: UpstreamAuth, document: Document) -> Iterator[ConfigError]:
    secret, way = auth.client_secret, auth.client_auth
    if auth.client_key is not None and not is_reference(auth.client_key):
        hint = "write `secret:NAME`, `env:NAME` or `file:PATH`, and replace the key that stood here"
        yield document.wrong("`client_key` must be a reference, not the key", (*at, "client_key"), hint=hint)
    if auth.client_key is not None and (secret is not None or way not in (None, "private_key_jwt")):
        yield document.wrong("`client_key` is for `private_key_jwt`", (*at, "client_key"), hint="remove it", key=True)
    if secret is not None and auth.type != "workload" and not (auth.issuer or auth.token_endpoint):
        hint = "add the `issuer` that knows it: else it would go to any that the server names"
        yield document.wrong("for whom the `client_secret` is, is not said", (*at, "client_secret"), hint=hint)
    if auth.type == "oauth" and (secret or way or auth.client_key) and not auth.client_id:
        hint = "add `client_id:`, or let callgate register itself"
        yield document.wrong("what proves a client needs a `client_id`", at, hint=hint, key=True)
    yield from proof_faults(at, secret, way, document)


def proof_faults(at: Path_, secret: str | None, way: str | None, document: Document) -> Iterator[ConfigError]:
    """What is wrong with how a client proves itself: its `client_secret` and `client_auth`."""
    if secret is not None and not is_reference(secret):
        hint = "write `secret:NAME`, `env:NAME` or `file:PATH`, and replace the secret that stood here"
        yield document.wrong("`client_secret` must be a reference, not the secret", (*at, "client_secret"), hint=hint)
    if way in ("client_secret_basic", "client_secret_post") and secret is None:
        yield document.wrong(f"`{way}` needs a `client_secret`", (*at, "client_auth"), hint="add `client_secret:`")
    if way in ("private_key_jwt", "none") and secret is not None:
        hint = "remove it, or `client_auth`"
        yield document.wrong(f"`{way}` needs no `client_secret`", (*at, "client_secret"), hint=hint, key=True)


def endpoint_fault(text: str) -> str:
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
