"""Strict reading of what clients post: one value for each name, of a bounded size."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus

from .problem import TokenError, invalid_client, invalid_request, invalid_target

FORM_BYTES = 64 * 1024
MOST_FIELDS = 32
FORM = "application/x-www-form-urlencoded"
#: The standards let a client name several targets. A token of ours has exactly one audience.
TARGETS = frozenset({"resource", "audience"})

Form = Mapping[str, str]


def read_form(kind: str, body: bytes) -> Form:
    """The fields of a form. Raises TokenError: also when a name occurs twice, where two readers would differ."""
    if len(body) > FORM_BYTES:
        raise TokenError("invalid_request", f"The body is larger than {FORM_BYTES} bytes.", 413)
    if kind.partition(";")[0].strip().lower() != FORM:
        raise TokenError("invalid_request", f"The Content-Type must be {FORM}.", 415)
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=MOST_FIELDS,
            encoding="utf-8", errors="strict",
        )  # fmt: skip
    except ValueError:
        raise invalid_request("The body is not a form.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise invalid_target("Ask for one target.") if name in TARGETS else invalid_request("A name occurs twice.")
        if not value.isprintable() or not name.isprintable():
            raise invalid_request("A value has characters that no value has.")
        found[name] = value
    # RFC 6749, section 3.2: a parameter without a value is one that was left out.
    return {name: value for name, value in found.items() if value}


def needed(form: Form, name: str) -> str:
    value = form.get(name)
    if value is None:
        raise invalid_request(f"The parameter `{name}` is missing.")
    return value


def scopes_of(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split()))


def basic(authorization: bytes) -> tuple[str, str]:
    """Client id and secret, each of them form-encoded (RFC 6749, section 2.3.1)."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        raise invalid_client()
    try:
        id, colon, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise invalid_client() from None
    if not colon:
        raise invalid_client()
    return unquote_plus(id), unquote_plus(secret)


def named_client(form: Form, authorization: bytes | None) -> str:
    """Who a request says that it is from, unproved: to count failures by."""
    if authorization is None:
        return form.get("client_id", "")
    try:
        return basic(authorization)[0]
    except TokenError:
        return ""
