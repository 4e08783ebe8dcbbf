"""Token requests and their answers (RFC 6749, 7523, 8693), as text: nothing here touches a socket."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import msgspec

from callgate.config import UpstreamAuth
from callgate.errors import CallgateError, Denied, UpstreamError

from .challenge import scopes_in
from .reach import object_in

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"

#: How long a token is used whose issuer does not say how long it lives (seconds), and the longest of all.
UNSAID = 60.0
LONGEST = 24 * 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_CODE = re.compile(r"[a-z_]{1,64}")
#: The issuer speaks of the caller, not of the client that callgate is there.
_OF_CALLER = frozenset(
    {
        "access_denied", "invalid_grant", "consent_required", "interaction_required", "login_required",
        "insufficient_scope", "invalid_scope", "invalid_target",
    }
)  # fmt: skip


class Token(msgspec.Struct, frozen=True):
    """What an issuer gave; ``expires`` in seconds since the epoch. It does not show itself when it is printed."""

    value: str
    expires: float

    def __repr__(self) -> str:
        return "Token(***)"

    __str__ = __repr__


class Given(msgspec.Struct, frozen=True):
    """All of an issuer's answer that is used: ``scopes`` is ``None`` where it does not say which it gave, ``timed``
    whether it says how long the token lives.
    """

    token: Token
    refresh: str = ""
    scopes: tuple[str, ...] | None = None
    timed: bool = True

    def __repr__(self) -> str:
        return "Given(***)"


def parameters(auth: UpstreamAuth, url: str, subject_token: str, own: bool) -> dict[str, str]:
    """The form of one request. Without a ``subject_token`` callgate asks for itself; ``own``: it is the caller's."""
    form = {"grant_type": "client_credentials"}
    if subject_token and auth.type == "on_behalf_of":
        form = {"grant_type": JWT_BEARER, "assertion": subject_token, "requested_token_use": "on_behalf_of"}
    elif subject_token and auth.type in ("workload", "enterprise"):
        form = {"grant_type": JWT_BEARER, "assertion": subject_token}
    elif subject_token:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": subject_token,
            "subject_token_type": ACCESS_TOKEN if own else JWT,
            "requested_token_type": ACCESS_TOKEN,
        }
    resource = auth.resource
    if resource is None and auth.type != "on_behalf_of":
        resource = url.partition("#")[0].rstrip("/")
    if resource:
        form["resource"] = resource
    if auth.audience:
        form["audience"] = auth.audience
    if auth.scope:
        form["scope"] = " ".join(auth.scope)
    return form


class Client(msgspec.Struct, frozen=True):
    """The client that callgate is at an issuer, and how it proves that (``way``: the name of RFC 7591)."""

    id: str
    way: str
    secret: str = ""

    def __repr__(self) -> str:
        return f"Client({self.id!r}, {self.way!r}, ***)"


def way_of(auth: UpstreamAuth) -> str:
    """How a configured client proves itself."""
    if auth.client_auth is not None:
        return auth.client_auth
    if auth.client_secret:
        return "client_secret_basic"
    # A client that is not registered has nothing to prove; neither has one whose id is a document.
    public = auth.type == "workload" or (auth.type == "oauth" and not auth.client_key)
    return "none" if public else "private_key_jwt"


def with_client(client: Client, form: Mapping[str, str], assertion: str) -> tuple[dict[str, str], dict[str, str]]:
    """Form and headers with what proves the client. One without an id is not named."""
    if client.way == "client_secret_basic":
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}".encode()
        return dict(form), {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    more = {"client_id": client.id} if client.id else {}
    if client.way == "client_secret_post":
        more["client_secret"] = client.secret
    elif client.way == "private_key_jwt":
        more |= {"client_assertion_type": CLIENT_ASSERTION, "client_assertion": assertion}
    return {**form, **more}, {}


def granted(status: int, body: bytes, now: float, kind: str = "bearer") -> Token:
    """The token in an answer. ``Denied``: not for this caller; ``UpstreamError``: not usable."""
    return given(status, body, now, kind).token


def given(status: int, body: bytes, now: float, kind: str = "bearer") -> Given:
    """What is in an answer, of which the token must be of this kind (``token_type``). Errors as in ``granted``.

    Of what the issuer says only its error code is repeated, because the rest may hold anything.
    """
    said = object_in(body)
    if status != 200:
        raise _refusal(status, said.get("error"))
    value, type_ = said.get("access_token"), said.get("token_type")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise UpstreamError("gets no token of its issuer: the token endpoint answered something else")
    if not isinstance(type_, str) or type_.lower() != kind:
        wanted = {"bearer": "no bearer token", "dpop": "not bound to callgate's key"}.get(kind, "no identity assertion")
        raise UpstreamError(f"gets no token of its issuer that callgate can use: it is {wanted}")
    refresh, scope = said.get("refresh_token"), said.get("scope")
    return Given(
        Token(value, now + _lifetime(said.get("expires_in"))),
        refresh if isinstance(refresh, str) and _TOKEN.fullmatch(refresh) else "",
        scopes_in(scope) if isinstance(scope, str) else None,
        said.get("expires_in") is not None,
    )


def _lifetime(said: Any) -> float:
    if isinstance(said, str) and said.isascii() and said.isdigit():  # some issuers write it as text
        said = float(said[:12])
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < math.inf:
        return UNSAID
    return float(min(said, LONGEST))  # the smaller one first: a whole number may be too large for a float


def _refusal(status: int, code: Any) -> CallgateError:
    if 300 <= status < 400:
        return UpstreamError(f"gets no token: its token endpoint redirects ({status}), which callgate does not follow")
    known = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
    if known in _OF_CALLER:
        return Denied(
            f"gets no token for this caller: its issuer answered `{known}`",
            hint="The issuer of that server must know the caller and allow it this access.",
            data={"kind": "identity", "error": known},
        )
    return UpstreamError(
        f"gets no token: its issuer answered {f'`{known}`' if known else 'without a reason'} ({status})"
    )
