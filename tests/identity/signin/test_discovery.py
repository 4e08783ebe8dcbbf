"""Discovery documents, and where a browser may be sent, without a network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.identity import SignInError, checked_back
from callgate.identity.openid import Undiscovered
from callgate.identity.signin.cookies import Cookies
from callgate.identity.signin.discovery import read_metadata

ISSUER = "https://idp.example.org"


def document(**changes: Any) -> bytes:
    known = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize?p=policy",
        "token_endpoint": f"{ISSUER}/token",
        "jwks_uri": "https://keys.example.org/jwks",
    }
    return json.dumps({**known, **changes}).encode()


def test_a_document() -> None:
    found = read_metadata(document(authorization_response_iss_parameter_supported=True), ISSUER)
    assert found.sends_iss and found.userinfo_endpoint == "" and found.jwks_uri == "https://keys.example.org/jwks"


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        document(issuer=f"{ISSUER}/"),
        document(issuer=ISSUER.upper()),
        document(token_endpoint="http://127.0.0.1:1/token"),
        document(jwks_uri="http://localhost/jwks"),
        document()[:-1] + f', "issuer": "{ISSUER}"}}'.encode(),
    ],
    ids=range(9),
)
def test_documents_that_are_not_used(raw: bytes) -> None:
    with pytest.raises(Undiscovered):
        read_metadata(raw, ISSUER)


@pytest.mark.parametrize(
    "back",
    ["/", "/healthz", "/oauth/authorize?redirect_uri=https%3A%2F%2Fa.example%2Fcb&state=%20", "/a/?x=//b", "/a%20b"],
)
def test_paths_to_come_back_to(back: str) -> None:
    assert checked_back(back) == back


def test_no_cookies_in_the_clear() -> None:
    for base in ("http://mcp.example.org", "http://192.0.2.1:8080", ""):
        jar = Cookies(base)
        with pytest.raises(SignInError):
            jar.check()
        assert jar.read(jar.session, {jar.session: "A" * 43}) == ""
    assert Cookies("http://[::1]:8080").possible and Cookies("https://x").session == "__Host-callgate"
