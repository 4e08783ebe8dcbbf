"""`auth` of a server: what holds together, and what cannot be meant."""

from __future__ import annotations

import pytest

from tests.config.folder import Folder

CORP = "type: enterprise, provider: corp, client_id: us"
AT = "token_endpoint: https://idp.example/token, client_id: us"


def entry(auth: str, more: str = "url: https://lake.example/mcp") -> str:
    people = "identity: {oauth: {}, providers: {corp: {issuer: https://idp.example, client_id: us}}}"
    return f"servers: {{lake: {{{more}, auth: {{{auth}}}}}}}\n{people}"


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
        "type: client_credentials, client_id: us, client_key: 'file:key.pem', dpop: true",
        "type: oauth",
        "type: oauth, client_id: us, client_secret: 'secret:notes', issuer: https://idp.example, scope: [a]",
        "type: oauth, client_id: https://us.example/client.json",
        "type: oauth, through: [planner], dpop: true, resource: '', authorize_params: {access_type: offline}",
        "type: oauth, issuer: https://login.example/v2.0, pkce: assumed",
        "type: workload, assertion_file: /var/run/token, audience: a, dpop: true",
        "type: workload, assertion_file: t, client_id: us, token_endpoint: https://idp.example/token",
        f"{CORP}, through: [planner]",
        f"{CORP}, subject_token: caller, subject_issuers: [https://idp.example]",
        f"{CORP}, assertion_file: id",
    ],
)
def test_what_can_be_meant(folder: Folder, auth: str) -> None:
    assert folder.load(entry(auth)).settings.servers["lake"].url


@pytest.mark.rule("SEC-1")
@pytest.mark.key("servers.auth.client_secret", "servers.auth.header", "servers.auth.token_endpoint")
@pytest.mark.key("servers.auth.client_key", "servers.auth.issuer", "servers.auth.provider")
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
        ("type: oauth, client_id: us, client_secret: 'env:X'", "for whom the `client_secret` is, is not said"),
        ("type: client_credentials, client_id: us, client_secret: 'env:X'", "for whom the `client_secret` is"),
        ("type: oauth, client_auth: private_key_jwt", "what proves a client needs a `client_id`"),
        ("type: oauth, client_id: us, client_key: KEY", "must be a reference, not the key"),
        (f"type: exchange, {AT}, client_key: 'env:K', client_secret: 'env:X'", "`client_key` is for `private_key_jwt`"),
        (f"type: exchange, {AT}, client_key: 'env:K', client_auth: none", "`client_key` is for `private_key_jwt`"),
        ("type: oauth, token_endpoint: https://idp.example/token", "`token_endpoint` has no effect"),
        ("type: oauth, audience: a", "`audience` has no effect"),
        ("type: oauth, issuer: http://idp.example", "`issuer` must begin with `https://`"),
        ("type: oauth, pkce: assumed", "`pkce: assumed` needs an `issuer`"),
        ("type: oauth, dpop: true, header: X-Token", "tokens that are bound to a key are shown as `Authorization`"),
        ("type: oauth, authorize_params: {state: mine}", "callgate sets `state` itself"),
        ("type: oauth, authorize_params: {redirect_uri: x}", "callgate sets `redirect_uri` itself"),
        ("type: oauth, assertion_file: t", "`assertion_file` has no effect"),
        ("type: assertion, dpop: true", "`dpop` has no effect"),
        (f"type: exchange, {AT}, through: [a]", "`through` has no effect"),
        ("type: workload", "needs a `assertion_file`"),
        ("type: workload, assertion_file: t, client_secret: 'env:X'", "`client_secret` has no effect"),
        ("type: enterprise, client_id: us", "needs a `provider`"),
        ("type: enterprise, provider: corp", "needs a `client_id`"),
        ("type: enterprise, provider: crop, client_id: us", "there is no identity provider `crop`"),
        (f"{CORP}, subject_token: caller", "whose tokens may go to the token endpoint is not said"),
        (f"{CORP}, subject_issuers: [x]", "`subject_issuers` has no effect"),
        (f"{CORP}, subject_token: assertion", "an assertion by callgate is no ID token"),
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
