"""What the types cannot say: settings that must agree with each other and with the world outside the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from callgate.errors import ConfigError, nearest

from .addresses import Address, address_hint, parse_address
from .agent_checks import check_agents
from .auth_checks import check_apart, check_auth, check_providers
from .certificate_checks import check_certificates
from .clients import NAME
from .document import Document, missing
from .egress_checks import check_egress
from .federation_checks import check_federation
from .guard_checks import check_guard
from .kinds import ALGORITHMS
from .model import Server, Settings
from .node import Path_
from .policy_checks import check_classes
from .provider_checks import check_sign_in
from .quota_checks import check_quotas
from .secret_checks import check_secrets

_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749, section 3.3
_LOCAL = {"args", "env", "cwd"}
_REMOTE = {"headers", "ca_file", "proxy", "auth"}


def check(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Every problem of ``settings``; ``document`` is the merged tree that they were decoded from."""
    for name, server in settings.servers.items():
        yield from _name(name, "servers", document)
        yield from _server(name, server, document)
    yield from check_apart(settings.servers, document)
    yield from check_classes(settings, document)
    yield from check_providers(settings, document)
    yield from check_quotas(settings, document)
    for name in settings.virtual_servers:
        yield from _name(name, "virtual_servers", document)
        for key in ("tools", "prompts", "resources"):
            yield from _globs(name, key, settings, document)
    yield from _identity(settings, document)
    yield from _vault(settings, document)
    yield from _files(settings, document)
    yield from check_secrets(settings, document)
    yield from check_egress(settings.egress, document)
    yield from check_federation(settings, document)
    yield from check_guard(settings, document)
    yield from _listeners(settings, document)


def _name(name: str, section: str, document: Document) -> Iterator[ConfigError]:
    if not NAME.fullmatch(name):
        hint = "up to 64 letters, digits, `_`, `.` and `-`, the first a letter or digit"
        yield document.wrong(f"`{name}` cannot be the name of a server", (section, name), hint=hint, key=True)


def _server(name: str, server: Server, document: Document) -> Iterator[ConfigError]:
    at: Path_ = ("servers", name)
    if server.command is None and server.url is None:
        hint = "add `command:` (a program to start) or `url:` (a server to connect to)"
        yield document.wrong(f"server `{name}` has neither `command` nor `url`", at, hint=hint, key=True)
        return
    if server.command is not None and server.url is not None:
        hint = "keep one; for two servers make two entries"
        yield document.wrong(f"server `{name}` has both `command` and `url`", (*at, "url"), hint=hint, key=True)
        return
    stdio = server.command is not None
    if server.type is not None and (server.type == "stdio") != stdio:
        has = "command" if stdio else "url"
        hint = f"remove `type`, or write `{'stdio' if stdio else 'http'}`"
        yield document.wrong(
            f"server `{name}` has a `{has}`, so its type is not `{server.type}`", (*at, "type"), hint=hint
        )
    if server.type == "sse" and server.protocol == "modern":
        hint = "remove `protocol`, or `type`"
        yield document.wrong(
            "servers of HTTP+SSE speak only the legacy era of the protocol", (*at, "protocol"), hint=hint
        )
    for key in sorted((_REMOTE if stdio else _LOCAL) & set(_keys(document, at))):
        goes = "url" if stdio else "command"
        yield document.wrong(f"`{key}` has no effect without `{goes}`", (*at, key), hint=f"remove `{key}`", key=True)
    yield from _urls(at, server, document)
    if not stdio:
        yield from check_auth((*at, "auth"), server, document)
    if server.command is not None and not server.command.strip():
        yield document.wrong("`command` is empty", (*at, "command"), hint="name the program to start")
    if not server.disabled:
        yield from _exists((*at, "cwd"), server.cwd, document, folder=True)
        yield from _exists((*at, "ca_file"), server.ca_file, document)


def _keys(document: Document, path: Path_) -> Iterable[str]:
    part = document.data
    for step in path:
        part = part[step] if isinstance(part, dict) else {}
    return [str(key) for key in part] if isinstance(part, dict) else []


def _urls(at: Path_, server: Server, document: Document) -> Iterator[ConfigError]:
    for key, text in (("url", server.url), ("proxy", server.proxy)):
        if text is not None and (why := url_fault(text)):
            hint = "write it like `https://example.org/mcp`" if key == "url" else "write it like `http://proxy:3128`"
            yield document.wrong(f"`{key}` {why}", (*at, key), hint=hint)


def url_fault(text: str) -> str:
    """What is wrong with an http(s) URL, or ``""``."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https"):
        return "must begin with `http://` or `https://`"
    if any(sign.isspace() or ord(sign) < 32 for sign in text):
        return "contains a space or control character"
    return "" if host else "names no host"


def _exists(path: Path_, value: str | None, document: Document, folder: bool = False) -> Iterator[ConfigError]:
    """The loader has made these paths absolute."""
    if value is None:
        return
    target = Path(value)
    found = target.is_dir() if folder else target.is_file()
    if found:
        return
    what = "folder" if folder else "file"
    if target.exists():
        yield document.wrong(f"{target} is not a {what}", path)
    else:
        yield missing(target, document.place(path), what)


def _globs(name: str, key: str, settings: Settings, document: Document) -> Iterator[ConfigError]:
    servers = list(settings.servers)
    for at, glob in enumerate(getattr(settings.virtual_servers[name], key)):
        path: Path_ = ("virtual_servers", name, key, at)
        server, slash, tool = glob.partition("/")
        if not slash or not server or not tool:
            form = {"tools": "server/tool", "prompts": "server/prompt", "resources": "server/uri"}[key]
            hint = f"write `{glob or '*'}/*` for all {key} of a server"
            yield document.wrong(f"`{glob}` is not of the form `{form}`", path, hint=hint)
        elif not any(fnmatchcase(known, server) for known in servers):
            found = nearest(server, servers)
            known = ", ".join(f"`{one}`" for one in servers[:8]) or "there are none"
            hint = f"did you mean `{found}/{tool}`?" if found else f"configured servers: {known}"
            yield document.wrong(f"no server matches `{glob}`", path, hint=hint)


def _identity(settings: Settings, document: Document) -> Iterator[ConfigError]:
    seen: dict[str, int] = {}
    for at, key in enumerate(settings.identity.keys):
        first = seen.setdefault(key.sha256.lower(), at)
        if first != at:
            where = document.place(("identity", "keys", first)).line
            hint = f"it stands in line {where} already; one key names one subject"
            yield document.wrong("the same key is given twice", ("identity", "keys", at, "sha256"), hint=hint)
    issuers: dict[str, int] = {}
    for at, issuer in enumerate(settings.identity.jwt):
        path: Path_ = ("identity", "jwt", at)
        if issuers.setdefault(issuer.issuer, at) != at:
            hint = "put all audiences in the `audience` list of one entry"
            yield document.wrong(f"issuer `{issuer.issuer}` is given twice", (*path, "issuer"), hint=hint)
        if "#" in issuer.issuer:  # our tokens say ISSUER#SUBJECT: it would be somebody of another issuer
            hint = "write the `iss` claim of its tokens; no issuer has a fragment (RFC 8414)"
            yield document.wrong("`issuer` has a `#`, which no issuer has", (*path, "issuer"), hint=hint)
        for index, algorithm in enumerate(issuer.algorithms):
            if algorithm not in ALGORITHMS:
                hint = f"did you mean `{nearest(algorithm, ALGORITHMS)}`?" if nearest(algorithm, ALGORITHMS) else ""
                hint = hint or "accepted: " + ", ".join(ALGORITHMS)
                yield document.wrong(
                    f"algorithm `{algorithm}` is not accepted", (*path, "algorithms", index), hint=hint
                )
        if issuer.jwks_uri is not None and (why := url_fault(issuer.jwks_uri)):
            yield document.wrong(f"`jwks_uri` {why}", (*path, "jwks_uri"))
        yield from _exists((*path, "jwks_file"), issuer.jwks_file, document)
    yield from _agents(settings, document)
    yield from check_agents(settings, document)
    yield from check_certificates(settings.identity, document)
    yield from check_sign_in(settings, document)


def _agents(settings: Settings, document: Document) -> Iterator[ConfigError]:
    oauth = settings.identity.oauth
    uris: list[tuple[Path_, str | None]] = [(("public_url",), settings.public_url)]
    if oauth is not None:
        uris.append((("identity", "oauth", "issuer"), oauth.issuer))
    for name, agent in settings.identity.agents.items():
        at: Path_ = ("identity", "agents", name)
        if not NAME.fullmatch(name):
            hint = "up to 64 letters, digits, `_`, `.` and `-`, the first a letter or digit"
            yield document.wrong(f"`{name}` cannot be the name of an agent", at, hint=hint, key=True)
        uris.append(((*at, "jwks_uri"), agent.jwks_uri))
        for index, scope in enumerate(agent.scopes):
            if not _SCOPE.fullmatch(scope):
                yield document.wrong(f"`{scope}` cannot be a scope", (*at, "scopes", index), hint="no spaces or quotes")
    for path, uri in uris:
        if uri is not None and (why := url_fault(uri)):
            yield document.wrong(f"`{path[-1]}` {why}", path, hint="write it like `https://mcp.example.org`")


def _vault(settings: Settings, document: Document) -> Iterator[ConfigError]:
    vault = settings.secrets.vault
    at: Path_ = ("secrets", "vault")
    if vault is None:
        return
    if why := url_fault(vault.url):
        yield document.wrong(f"`url` {why}", (*at, "url"), hint="write it like `https://vault.example.org:8200`")
    if (vault.token is None) == (vault.role is None):
        hint = "`token: env:VAULT_TOKEN`, or `role:` with a Kubernetes service account"
        yield document.wrong("the vault needs either `token` or `role`", at, hint=hint, key=True)
    yield from _exists((*at, "ca_file"), vault.ca_file, document)


def _files(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Files with authorities that other stores of secrets need."""
    secrets = settings.secrets
    yield from _exists(("secrets", "kubernetes", "ca_file"), secrets.kubernetes.ca_file, document)
    if secrets.onepassword is not None:
        yield from _exists(("secrets", "onepassword", "ca_file"), secrets.onepassword.ca_file, document)


def _listeners(settings: Settings, document: Document) -> Iterator[ConfigError]:
    found: list[Address] = []
    for key, text in (("listen", settings.listen), ("admin_listen", settings.admin_listen)):
        address = parse_address(text)
        if address is None:
            yield document.wrong(f"`{key}` is not an address: `{text}`", (key,), hint=address_hint(text))
        else:
            found.append(address)
            if key == "listen":
                yield from _open_door(address, settings, document)
    if len(found) == 2 and found[0] == found[1] and found[0].port:
        hint = "give the admin listener another port"
        yield document.wrong("`listen` and `admin_listen` are the same address", ("admin_listen",), hint=hint)


def _open_door(address: Address, settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Who may come in from other machines must be said; nobody comes in by accident."""
    if address.loopback:
        return
    if settings.identity.anonymous:
        hint = "remove it, or listen on 127.0.0.1"
        path: Path_ = ("identity", "anonymous")
        yield document.wrong(f"`anonymous` is not possible on {address}, which other machines reach", path, hint=hint)
    lacking = []
    if settings.policy is None or settings.policy == ():
        lacking.append(("a policy", "`policy: policy.yaml`"))
    if not settings.identity.keys and not settings.identity.jwt and settings.identity.oauth is None:
        lacking.append(("an identity source", "`identity:` with `keys:`, `jwt:` or `oauth:`"))
    if lacking:
        needs, add = (" and ".join(part) for part in zip(*lacking, strict=True))
        hint = f"add {add}, or listen on 127.0.0.1:{address.port}"
        yield document.wrong(
            f"listening on {address}, which other machines reach, needs {needs}", ("listen",), hint=hint
        )
