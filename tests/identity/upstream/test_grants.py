"""Token requests, and what comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.config import UpstreamAuth
from callgate.errors import Denied, UpstreamError
from callgate.identity.upstream.grants import LONGEST, UNSAID, Client, Token, granted, parameters, with_client

URL = "https://lake.example/mcp/"


def auth(type: Any = "exchange", **more: Any) -> UpstreamAuth:
    return UpstreamAuth(type=type, token_endpoint="https://idp.example/token", client_id="us", **more)


def answered(**said: Any) -> bytes:
    return json.dumps({"access_token": "t", "token_type": "Bearer", **said}).encode()


@pytest.mark.rule("OC-4")
@pytest.mark.key("servers.auth.resource", "servers.auth.audience", "servers.auth.scope")
def test_the_resource_is_in_every_request_unless_it_is_turned_off() -> None:
    for subject in ("", "token"):
        assert parameters(auth(), URL, subject, False)["resource"] == "https://lake.example/mcp"
    assert parameters(auth(resource="urn:lake"), URL, "token", False)["resource"] == "urn:lake"
    assert "resource" not in parameters(auth(resource=""), URL, "token", False)
    assert "resource" not in parameters(auth("on_behalf_of"), URL, "token", True)
    form = parameters(auth(audience="lake", scope=("read", "write")), URL, "token", False)
    assert (form["audience"], form["scope"]) == ("lake", "read write")


def test_the_kind_of_the_subject_token_is_told() -> None:
    assert parameters(auth(), URL, "token", False)["subject_token_type"].endswith(":jwt")
    assert parameters(auth(), URL, "token", True)["subject_token_type"].endswith(":access_token")


def test_a_client_id_cannot_break_out_of_basic() -> None:
    form, headers = with_client(Client("us", "client_secret_basic", "a:b\r\nX: 1"), {}, "")
    assert form == {}
    assert headers == {"authorization": "Basic dXM6YSUzQWIlMEQlMEFYJTNBKzE="}


def test_a_client_may_have_nothing_to_prove() -> None:
    assert with_client(Client("us", "none"), {"a": "b"}, "") == ({"a": "b", "client_id": "us"}, {})


@pytest.mark.parametrize(
    ("said", "lives"),
    [
        ({"expires_in": 600}, 600),
        ({"expires_in": "600"}, 600),
        ({}, UNSAID),
        ({"expires_in": -5}, UNSAID),
        ({"expires_in": True}, UNSAID),
        ({"expires_in": "soon"}, UNSAID),
        ({"expires_in": 10**30}, LONGEST),
        ({"expires_in": 10**400}, LONGEST),
    ],
)
def test_how_long_a_token_lives(said: dict[str, Any], lives: float) -> None:
    assert granted(200, answered(**said), 1000.0).expires == 1000.0 + lives


@pytest.mark.rule("SEC-2")
def test_a_token_does_not_show_itself() -> None:
    token = Token("very-secret", 1.0)
    assert "very-secret" not in f"{token} {token!r} {[token]}"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"access_token": 5, "token_type": "Bearer"}',
        answered(access_token="a\r\nX-Admin: yes"), answered(access_token=""), answered(access_token="x" * 20_000),
        answered(token_type="DPoP"), answered(token_type="N_A"), answered(token_type=None), b"[" * 100_000,
        b'{"access_token": "\xff", "token_type": "Bearer"}',
    ],
)  # fmt: skip
def test_nonsense_is_no_token(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="gets no token"):
        granted(200, body, 0.0)


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, "invalid_grant", Denied),
        (403, "consent_required", Denied),
        (401, "invalid_client", UpstreamError),
        (400, "the token eyJ was no good", UpstreamError),
        (400, {"a": 1}, UpstreamError),
        (500, None, UpstreamError),
        (302, "invalid_grant", UpstreamError),
    ],
)
def test_a_refusal_repeats_only_a_code(status: int, error: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as found:
        granted(status, json.dumps({"error": error, "error_description": "eyJ"}).encode(), 0.0)
    assert "eyJ" not in str(found.value)
