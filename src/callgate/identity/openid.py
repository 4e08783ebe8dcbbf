"""The document in which an issuer describes itself (OpenID Connect Discovery 1.0), believed for that issuer only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callgate.egress import is_loopback, parse_url
from callgate.errors import CallgateError

from .claims import read_object


class Undiscovered(ValueError):
    """The document cannot be had or cannot be used; the text is for the log."""


def document_url(issuer: str) -> str:
    """
    >>> document_url("https://idp.example.org/realms/main")
    'https://idp.example.org/realms/main/.well-known/openid-configuration'
    """
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def read_document(raw: bytes, issuer: str) -> dict[str, Any]:
    """Raises Undiscovered: also when the document is another issuer's (rule OC-2: no normalisation)."""
    try:
        said = read_object(raw)
    except ValueError as error:
        raise Undiscovered(f"it is not a JSON object ({ascii(str(error))[:80]})") from None
    if said.get("issuer") != issuer:
        raise Undiscovered(
            f"it is that of another issuer, {ascii(said.get('issuer'))[:200]} (`issuer` must be exactly that)"
        )
    return said


def endpoint_in(said: Mapping[str, Any], name: str, issuer: str) -> str:
    """An https URL; of an issuer on loopback without TLS also one on loopback. Raises Undiscovered."""
    url = said.get(name)
    try:
        at = parse_url(url) if isinstance(url, str) and "#" not in url else None
    except CallgateError:
        at = None
    if at is None:
        raise Undiscovered(f"`{name}` is missing or no URL")
    if not at.secure and (parse_url(issuer).secure or not is_loopback(at.host)):
        raise Undiscovered(f"`{name}` is not https")
    return str(url)
