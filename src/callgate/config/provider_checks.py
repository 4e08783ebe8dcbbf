"""What must agree in `identity.providers`: a sign-in that cannot work, or is not safe, is a mistake in the file."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from callgate.errors import ConfigError, nearest

from .addresses import parse_address
from .auth_checks import endpoint_fault, proof_faults
from .clients import NAME
from .document import Document
from .kinds import ALGORITHMS
from .model import Settings
from .model_identity import Provider
from .node import Path_

_SECTION: Path_ = ("identity", "providers")


def check_sign_in(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Every problem of `identity.providers`."""
    providers = settings.identity.providers
    if not providers:
        return
    if settings.identity.oauth is None:
        hint = "add `oauth: {}` beside it; people get their tokens from the token service"
        yield document.wrong("`providers` needs `oauth`", _SECTION, hint=hint, key=True)
    yield from _address(settings, document)
    taken: dict[str, str] = {}
    for name, each in providers.items():
        at = (*_SECTION, name)
        if not NAME.fullmatch(name):
            hint = "up to 64 letters, digits, `_`, `.` and `-`, the first a letter or digit"
            yield document.wrong(f"`{name}` cannot be the name of a provider", at, hint=hint, key=True)
        if (first := taken.setdefault(each.issuer, name)) != name:
            hint = f"it is that of `{first}`; one issuer is one entry"
            yield document.wrong(f"issuer `{each.issuer}` is given twice", (*at, "issuer"), hint=hint)
        yield from _issuer(at, each.issuer, document)
        yield from proof_faults(at, each.client_secret, each.client_auth, document)
        yield from _claims(at, each, document)
        yield from _names(at, each, settings, document)


def _address(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Where providers send browsers back to, with what must not be read on the way."""
    path: Path_ = ("public_url",)
    if settings.public_url is None:
        listen = parse_address(settings.listen)
        if listen is not None and not listen.loopback:
            hint = "add `public_url: https://…`, the address at which browsers reach the gateway"
            yield document.wrong("`providers` needs a `public_url`", _SECTION, hint=hint, key=True)
        return
    if fault := endpoint_fault(settings.public_url):
        yield document.wrong(
            f"`public_url` {fault}: people sign in there", path, hint="write `https://mcp.example.org`"
        )
    elif urlsplit(settings.public_url).path not in ("", "/"):
        hint = "give the gateway a host of its own; cookies belong to hosts, not to paths"
        yield document.wrong("`public_url` has a path, where people cannot sign in", path, hint=hint)


def _issuer(at: Path_, issuer: str, document: Document) -> Iterator[ConfigError]:
    path = (*at, "issuer")
    parts = urlsplit(issuer) if not endpoint_fault(issuer) else None
    if parts is None:
        hint = "write it as the `issuer` of its discovery document, such as `https://idp.example.org`"
        yield document.wrong(f"`issuer` {endpoint_fault(issuer)}", path, hint=hint)
    elif parts.query or parts.fragment or "#" in issuer or "?" in issuer:
        yield document.wrong("`issuer` has a query or a fragment, which no issuer has", path, hint="remove it")
    elif issuer.endswith("/.well-known/openid-configuration"):
        short = issuer.removesuffix("/.well-known/openid-configuration")
        yield document.wrong("`issuer` is the address of the discovery document", path, hint=f"write `{short}`")


def _names(at: Path_, each: Provider, settings: Settings, document: Document) -> Iterator[ConfigError]:
    """A person has one name, whichever way that person comes; and whoever may choose a value of one claim must not
    become whom another claim has under that name.
    """
    for index, issuer in enumerate(settings.identity.jwt):
        if issuer.issuer == each.issuer and issuer.subject_claim != each.subject_claim:
            hint = f"people of one issuer are told apart by one claim; `identity.jwt[{index}]` has another one"
            path: Path_ = (*at, "subject_claim") if each.subject_claim != "sub" else at
            yield document.wrong(f"`subject_claim` is not `{issuer.subject_claim}`", path, hint=hint)


def _claims(at: Path_, each: Provider, document: Document) -> Iterator[ConfigError]:
    for index, algorithm in enumerate(each.algorithms):
        if algorithm not in ALGORITHMS:
            found = nearest(algorithm, ALGORITHMS)
            hint = f"did you mean `{found}`?" if found else "accepted: " + ", ".join(ALGORITHMS)
            yield document.wrong(f"algorithm `{algorithm}` is not accepted", (*at, "algorithms", index), hint=hint)
    for index, scope in enumerate(each.scopes):
        if not scope or not all("!" <= sign <= "~" and sign not in '"\\' for sign in scope):
            yield document.wrong(f"`{scope}` cannot be a scope", (*at, "scopes", index), hint="no spaces or quotes")
    if not each.subject_claim:
        yield document.wrong("`subject_claim` is empty", (*at, "subject_claim"), hint="remove it: `sub` is the default")
