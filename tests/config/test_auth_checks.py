"""`auth` of a server: what holds together, and what cannot be meant."""

from __future__ import annotations

import pytest

from tests.config.folder import Folder

AT = "token_endpoint: https://idp.example/token, client_id: us"


def entry(auth: str, more: str = "url: https://lake.example/mcp") -> str:
    return f"servers: {{lake: {{{more}, auth: {{{auth}}}}}}}"


@pytest.mark.key("servers.auth.type")
@pytest.mark.parametrize(
    "auth",
    [
        "",
        "type: assertion",
        "type: assertion, audience: lake, header: X-Caller, lifetime: 30s, subject_claim: email",
        f"type: exchange, {AT}, client_secret: 'secret:lake', audience: a, scope: [a, b], resource: ''",
        f"type: exchange, {AT}, subject_token: caller, subject_issuers: [https://idp.example]",
        f"type: on_behalf_of, {AT}, subject_issuers: [https://idp.example], scope: [a/.default]",
        f"type: on_behalf_of, {AT}, subject_token: assertion",
        f"type: client_credentials, {AT}, client_auth: private_key_jwt, issuer: https://idp.example",
        "type: client_credentials, token_endpoint: 'http://127.0.0.1:80/t', client_id: us",
    ],
)
def test_what_can_be_meant(folder: Folder, auth: str) -> None:
    assert folder.load(entry(auth)).settings.servers["lake"].url


@pytest.mark.rule("SEC-1")
@pytest.mark.key("servers.auth.client_secret", "servers.auth.header", "servers.auth.token_endpoint")
@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ("audience: lake", "`auth` needs a `type`"),
        ("type: exchange, client_id: us", "needs a `token_endpoint`"),
        ("type: exchange, token_endpoint: https://idp.example/token", "needs a `client_id`"),
        (f"type: exchange, {AT}, client_secret: hunter22", "must be a reference, not the secret"),
        (f"type: exchange, {AT}, client_auth: client_secret_post", "needs a `client_secret`"),
        (f"type: exchange, {AT}, client_auth: none, client_secret: env:X", "needs no `client_secret`"),
        (f"type: exchange, {AT}, subject_token: caller", "whose tokens may go to the token endpoint is not said"),
        (f"type: on_behalf_of, {AT}", "whose tokens may go to the token endpoint is not said"),
        (f"type: exchange, {AT}, subject_issuers: [x]", "`subject_issuers` has no effect"),
        (f"type: on_behalf_of, {AT}, subject_issuers: [x], audience: a", "`audience` has no effect"),
        (f"type: client_credentials, {AT}, subject_token: caller", "`subject_token` has no effect"),
        ("type: assertion, scope: [a]", "`scope` has no effect"),
        ("type: exchange, client_id: us, token_endpoint: http://idp.example/token", "must begin with `https://`"),
        ("type: exchange, client_id: us, token_endpoint: 'https://a:b@idp.example/'", "is not the URL of a host"),
        ("type: exchange, client_id: us, token_endpoint: 'https://['", "is not a URL"),
        ("type: assertion, header: Mcp-Session-Id", "cannot be the header of a token"),
        ("type: assertion, header: 'X: 1'", "cannot be the header of a token"),
        ("type: assertion, lifetime: 1h", "at most 300"),
        ("type: passthrough", "must be one of"),
    ],
)
def test_what_cannot_be_meant(folder: Folder, auth: str, says: str) -> None:
    (problem,) = folder.refused(entry(auth))
    assert says in problem.message
    assert "hunter22" not in f"{problem.message} {problem.hint}"
    assert problem.place is not None


def test_a_program_is_shown_nothing(folder: Folder) -> None:
    (problem,) = folder.refused(entry("type: assertion", "command: time-server"))
    assert (problem.message, problem.hint) == ("`auth` has no effect without `url`", "remove `auth`")


@pytest.mark.key("servers.auth.audience")
def test_what_is_asserted_to_one_server_holds_at_no_other_of_its_origin(folder: Folder) -> None:
    def both(first: str, second: str, url: str = "https://LAKE.example:443/b/mcp") -> str:
        a = f"a: {{url: https://lake.example/a/mcp, auth: {{type: assertion{first}}}}}"
        return f"servers: {{{a}, b: {{url: '{url}', auth: {{type: assertion{second}}}}}}}"

    (problem,) = folder.refused(both("", ""))
    assert "would hold at `a` too" in problem.message
    assert folder.load(both("", ", audience: b")).settings.servers
    assert folder.load(both("", "", "https://lake.example/a/mcp")).settings.servers
    assert folder.load(both("", "", "https://other.example/b/mcp")).settings.servers


def test_one_header_is_not_set_twice(folder: Folder) -> None:
    more = "url: https://lake.example/mcp, headers: {authorization: env:X}"
    (problem,) = folder.refused(entry("type: assertion", more))
    assert problem.message == "`auth` sets the header `authorization` already"
    assert folder.load(entry("type: assertion, header: X-Caller", more)).settings.servers


@pytest.mark.key("servers.isolation")
def test_named_callers_share_no_session(folder: Folder) -> None:
    more = "url: https://lake.example/mcp, isolation: shared"
    (problem,) = folder.refused(entry("type: assertion", more))
    assert "cannot share one session" in problem.message
    assert folder.load(entry(f"type: client_credentials, {AT}", more)).settings.servers
