"""What must agree in `identity.federation` and in the `workloads` of agents: who trusts too much is told here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from callgate.errors import ConfigError, nearest

from .auth_checks import endpoint_fault
from .document import Document, missing
from .kinds import ALGORITHMS
from .model import Settings
from .model_identity import Federation, Identity, Workload
from .node import Path_

_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
#: How the `sub` of Kubernetes, GitHub, GitLab and Terraform begins: what follows says whose workload it is.
_BEGINNINGS = re.compile(r"(system:serviceaccount|repo|project_path|organization):")
#: Keys that say nothing beside the Workload API, which gives the keys itself.
_IDLE = ("jwks_uri", "jwks_file", "ca_file", "token_file")


def check_federation(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Every problem of the issuers of workload identities, and of what agents expect of them."""
    identity = settings.identity
    at: Path_ = ("identity", "federation")
    if identity.federation and identity.oauth is None:
        yield document.wrong("workloads need the token service", at, hint="add `oauth: {}`", key=True)
    for name, entry in identity.federation.items():
        yield from _issuer((*at, name), entry, document)
    yield from _twice(settings, document)
    for name, agent in identity.agents.items():
        for index, workload in enumerate(agent.workloads):
            yield from _workload(("identity", "agents", name, "workloads", index), workload, identity, document)


def _issuer(at: Path_, entry: Federation, document: Document) -> Iterator[ConfigError]:
    if not entry.issuer and entry.trust_domain is None:
        hint = "add `issuer:`, or for SPIFFE `trust_domain:`"
        yield document.wrong("whose tokens these are is not said", at, hint=hint, key=True)
        return
    for index, algorithm in enumerate(entry.algorithms):
        if algorithm not in ALGORITHMS:
            found = nearest(algorithm, ALGORITHMS)
            hint = f"did you mean `{found}`?" if found else "accepted: " + ", ".join(ALGORITHMS)
            yield document.wrong(f"algorithm `{algorithm}` is not accepted", (*at, "algorithms", index), hint=hint)
    if "" in entry.audience:
        yield document.wrong("an audience is empty", (*at, "audience"), hint="name the `aud` of the tokens")
    yield from _keys(at, entry, document)
    yield from _spiffe(at, entry, document)


def _keys(at: Path_, entry: Federation, document: Document) -> Iterator[ConfigError]:
    """Where the keys come from: one source, reached without anybody between."""
    if entry.workload_api is not None:
        for key in _IDLE:
            if getattr(entry, key) is not None:
                said = f"`{key}` has no effect beside `workload_api`"
                yield document.wrong(said, (*at, key), hint=f"remove `{key}`", key=True)
        return
    if entry.jwks_uri is not None and entry.jwks_file is not None:
        yield document.wrong("there are two sources of keys", (*at, "jwks_file"), hint="keep one", key=True)
    for key in ("jwks_file", "ca_file", "token_file"):
        path = getattr(entry, key)
        # The token of a pod is mounted when the pod starts, which is later than `callgate config check`.
        if path is not None and key != "token_file" and not Path(path).is_file():
            yield missing(Path(path), document.place((*at, key)))
        if path is not None and key != "jwks_file" and entry.jwks_file is not None:
            said = f"`{key}` has no effect with `jwks_file`"
            yield document.wrong(said, (*at, key), hint=f"remove `{key}`", key=True)
    if entry.jwks_uri is not None and (why := endpoint_fault(entry.jwks_uri)):
        hint = "https, or http on this machine: whoever sits between could sign for everybody"
        yield document.wrong(f"`jwks_uri` {why}", (*at, "jwks_uri"), hint=hint)
    asked = entry.trust_domain is None and entry.jwks_uri is None and entry.jwks_file is None
    if asked and (why := endpoint_fault(entry.issuer)):
        hint = "add `jwks_uri:` or `jwks_file:`: this issuer cannot be asked for its keys"
        yield document.wrong(f"`issuer` {why}", (*at, "issuer"), hint=hint)


def _spiffe(at: Path_, entry: Federation, document: Document) -> Iterator[ConfigError]:
    if entry.trust_domain is None:
        if entry.workload_api is not None:
            said = "`workload_api` has no effect without `trust_domain`"
            yield document.wrong(said, (*at, "workload_api"), hint="add `trust_domain:`", key=True)
        return
    if not _DOMAIN.fullmatch(entry.trust_domain):
        hint = "write it like `example.org`, without `spiffe://`"
        yield document.wrong("`trust_domain` is not the name of one", (*at, "trust_domain"), hint=hint)
    if entry.workload_api is None and entry.jwks_file is None and entry.jwks_uri is None:
        hint = "add `workload_api:`, or `jwks_file:` or `jwks_uri:` with its bundle"
        yield document.wrong("the trust domain has no bundle", at, hint=hint, key=True)
    if entry.workload_api is not None and not _is_near(entry.workload_api):
        hint = "write it like `unix:///run/spire/agent.sock` or `tcp://127.0.0.1:8081`"
        yield document.wrong("`workload_api` is no socket of this machine", (*at, "workload_api"), hint=hint)


def _is_near(address: str) -> bool:
    """The Workload API has no encryption: it is on this machine (SPIFFE Workload Endpoint, section 4)."""
    try:
        parts = urlsplit(address)
        if parts.scheme == "unix":
            return not parts.netloc and parts.path.startswith("/") and not parts.query and not parts.fragment
        return parts.scheme == "tcp" and bool(parts.port) and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _twice(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Whose token it is must be plain from the token; and nobody else speaks with our name."""
    own = {settings.public_url, settings.identity.oauth.issuer if settings.identity.oauth else None}
    seen: dict[tuple[str, str], str] = {}
    for name, entry in settings.identity.federation.items():
        key = "issuer" if entry.trust_domain is None else "trust_domain"
        what = entry.trust_domain or entry.issuer
        at: Path_ = ("identity", "federation", name, key)
        first = seen.setdefault((key, what), name)
        if first != name:
            hint = "one entry serves all agents: add to its `audience`"
            yield document.wrong(f"`{first}` has this `{key}` already", at, hint=hint)
        if entry.issuer and entry.issuer in own:
            yield document.wrong("this is the token service itself", at, hint="its tokens are no proof of a workload")


def _workload(at: Path_, workload: Workload, identity: Identity, document: Document) -> Iterator[ConfigError]:
    entry = identity.federation.get(workload.issuer)
    if entry is None:
        known = list(identity.federation)
        found = nearest(workload.issuer, known)
        hint = f"did you mean `{found}`?" if found else "it names an entry of `identity.federation`"
        yield document.wrong(f"there is no issuer `{workload.issuer}`", (*at, "issuer"), hint=hint)
        return
    if why := _too_broad(workload.subject, entry):
        yield document.wrong(f"`{workload.subject}` {why[0]}", (*at, "subject"), hint=why[1])


def _too_broad(subject: str, entry: Federation) -> tuple[str, str] | None:
    """Why a glob covers more than its author can mean, or nothing at all, and what to write instead."""
    if not subject.isascii() or not subject.isprintable():
        return "has letters that no accepted `sub` has", "write it in ASCII"
    if entry.trust_domain is not None:
        home = f"spiffe://{entry.trust_domain}/"
        if not subject.startswith(home):
            return f"is not below `{home}`", f"write it like `{home}ns/team/sa/planner`"
        if not subject.removeprefix(home).replace("*", "").strip("/"):
            return "covers the whole trust domain", f"write it like `{home}ns/team/sa/*`"
    elif _BEGINNINGS.sub("", subject, count=1).startswith("*"):
        return "covers workloads of anybody", "write out the namespace, organisation or group at its beginning"
    if "**" in subject:
        return "has `**`, which means no more than `*`", "write one `*` for each part"
    return None
