"""What an application says of itself, in a document (CIMD) or when it registers (RFC 7591): strict reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from . import redirects
from .apps import Application, Kind, Method
from .grant_types import CODE, OF_APPS
from .request import scopes_of

MOST_REDIRECTS = 32
MOST_TITLE = 120
MOST_KEYS = 16
_METHODS = ("none", "client_secret_basic", "client_secret_post", "private_key_jwt")


class Unfit(Exception):
    """The description cannot be accepted. ``error`` is a code of RFC 7591, section 3.2.2; the text repeats nothing."""

    def __init__(self, why: str, error: str = "invalid_client_metadata") -> None:
        super().__init__(why)
        self.error = error
        self.why = why


class Described(msgspec.Struct, frozen=True):
    """How a description is read: what a missing method stands for, which methods and schemes are accepted."""

    kind: Kind
    default: Method
    methods: tuple[Method, ...]
    private_schemes: bool = False


#: A document is readable by everybody: it cannot have a secret, and no scheme shows who a program is.
DOCUMENT = Described("document", "none", ("none", "private_key_jwt"))
REGISTRATION = Described("registered", "client_secret_basic", cast(tuple[Method, ...], _METHODS), True)


def application(id: str, said: Mapping[str, Any], how: Described) -> Application:
    """The application that describes itself so. Raises Unfit."""
    method = said.get("token_endpoint_auth_method", how.default)
    if method not in how.methods:
        raise Unfit("The `token_endpoint_auth_method` is not accepted.")
    grants = _words(said, "grant_types", (CODE,))
    if not OF_APPS & set(grants):
        raise Unfit("None of the `grant_types` is one for applications.")
    if CODE in grants and "code" not in _words(said, "response_types", ("code",)):
        raise Unfit("The `response_types` do not contain `code`.")
    scope = said.get("scope")
    if scope is not None and (not isinstance(scope, str) or len(scope) > 4096):
        raise Unfit("The `scope` is not text.")
    bound = said.get("dpop_bound_access_tokens", False)
    if not isinstance(bound, bool):
        raise Unfit("`dpop_bound_access_tokens` is neither true nor false.")
    jwks, jwks_uri = _keys(said, method)
    return Application(
        id, how.kind, _redirects(said, how, CODE in grants), _title(said), (method,), OF_APPS & set(grants),
        # Clients register with what their first call needs and ask for more later (step-up): people say what is given.
        scopes=scopes_of(scope) if scope and how.kind == "document" else None,
        jwks=jwks, jwks_uri=jwks_uri, bound=bound,
    )  # fmt: skip


def _redirects(said: Mapping[str, Any], how: Described, needed: bool) -> tuple[str, ...]:
    found = _words(said, "redirect_uris", (), "invalid_redirect_uri")
    if needed and not found:
        raise Unfit("There are no `redirect_uris`.", "invalid_redirect_uri")
    if len(found) > MOST_REDIRECTS:
        raise Unfit(f"There are more than {MOST_REDIRECTS} `redirect_uris`.", "invalid_redirect_uri")
    native = said.get("application_type", "native") == "native"
    for uri in found:
        if why := redirects.fault(uri, private=how.private_schemes and native):
            raise Unfit(f"A redirect URI is refused: {why}.", "invalid_redirect_uri")
        if not native and not redirects.is_https(uri):
            raise Unfit("A web application has https redirect URIs only.", "invalid_redirect_uri")
    return found


def _title(said: Mapping[str, Any]) -> str:
    title = said.get("client_name", "")
    if not isinstance(title, str):
        raise Unfit("The `client_name` is not text.")
    return " ".join(title.split())[:MOST_TITLE]


def _keys(said: Mapping[str, Any], method: Method) -> tuple[dict[str, Any] | None, str | None]:
    jwks, uri = said.get("jwks"), said.get("jwks_uri")
    if method != "private_key_jwt":
        return None, None
    if (jwks is None) == (uri is None):
        raise Unfit("`private_key_jwt` needs one of `jwks` and `jwks_uri`.")
    if uri is not None:
        if not isinstance(uri, str) or not _plain_https(uri):
            raise Unfit("The `jwks_uri` is not an https URL.")
        return None, uri
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not 0 < len(keys) <= MOST_KEYS or not all(isinstance(each, dict) for each in keys):
        raise Unfit("The `jwks` is not a set of keys.")
    if any("d" in each or each.get("kty") == "oct" for each in keys):
        raise Unfit("The `jwks` has a secret in it.")
    return {"keys": keys}, None


def _plain_https(url: str) -> bool:
    if not redirects.is_https(url) or redirects.fault(url):
        return False
    return urlsplit(url).username is None


def _words(
    said: Mapping[str, Any], name: str, default: tuple[str, ...], error: str = "invalid_client_metadata"
) -> tuple[str, ...]:
    found = said.get(name)
    if found is None:
        return default
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Unfit(f"`{name}` is not a list of text.", error)
    return tuple(dict.fromkeys(found))
