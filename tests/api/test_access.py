"""Who reads what from the admin API, and the attacks on it."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from callgate.api.operations import OPERATIONS
from tests.office import ANN, BOB, EVE, OFFICE, POLICY, Office, start

PATHS = [each.path.replace("{id}", "38fqvwnhx1r00") for each in OPERATIONS if each.method == "GET"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", ["", "cg_mallory", "cgo_" + "a" * 43, "x.y.z"])
def test_nobody_reads_without_a_credential_that_holds(office: Office, path: str, token: str) -> None:
    answer = office.get(path, token)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json["error"]["code"] == "CG0800"


def test_explaining_needs_a_credential_too(office: Office) -> None:
    assert office.post("/api/v1/policy/explain", {"call": "notes/read"}).status == 401


@pytest.mark.parametrize("scheme", ["Basic", "Token", "bearer,"])
def test_the_operators_token_counts_as_a_bearer_token_only(office: Office, scheme: str) -> None:
    assert office.get("/api/v1/status", authorization=f"{scheme} {office.token}").status == 401


def test_two_credentials_are_none(office: Office) -> None:
    parts = urlsplit(office.admin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.putrequest("GET", "/api/v1/status")
    connection.putheader("authorization", f"Bearer {BOB}")
    connection.putheader("authorization", f"Bearer {office.token}")
    connection.endheaders()
    assert connection.getresponse().status == 400  # the gate refuses a header that two readers could read differently
    connection.close()


@pytest.mark.parametrize("path", [*PATHS, "/metrics"])
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "localhost:x"]
)
@pytest.mark.rule("HTTP-3")
def test_a_rebinding_host_is_refused_also_with_the_operators_token(office: Office, path: str, host: str) -> None:
    answer = office.get(path, office.token, host=host)
    assert answer.status in (400, 421)  # 400: the parser itself refuses it
    assert office.token not in answer.body.decode()
    assert b"callgate_" not in answer.body


@pytest.mark.rule("HTTP-3")
def test_pages_of_a_foreign_origin_are_refused(office: Office) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        assert office.get("/api/v1/status", office.token, origin=origin).status == 403
    assert office.get("/api/v1/status", office.token, origin=office.admin).status == 200


@pytest.mark.parametrize("host", ["localhost/api/v1/openapi.json?", "127.0.0.1#", "127.0.0.1/metrics"])
def test_the_host_header_never_becomes_part_of_the_path(office: Office, host: str) -> None:
    """A server that builds the URL from Host and path can be talked into another route (the "BadHost" class)."""
    assert office.get("/api/v1/status", host=host).status in (400, 401, 421)


@pytest.mark.parametrize("path", ["/api/v1/status/", "//api/v1/status", "/api/v1/../v1/status", "/API/v1/status"])
def test_nothing_redirects_and_no_other_spelling_leads_in(office: Office, path: str) -> None:
    answer = office.get(path, office.token)
    assert answer.status == 404
    assert "location" not in answer.headers


def test_the_operators_token_opens_nothing_on_the_gateway_listener(office: Office) -> None:
    parts = urlsplit(office.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    headers = {"authorization": f"Bearer {office.token}", "content-type": "application/json"}
    connection.request("POST", "/mcp", b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', headers)
    assert connection.getresponse().status == 401
    connection.close()


def test_the_admin_api_is_not_on_the_gateway_listener(office: Office) -> None:
    parts = urlsplit(office.url)
    for path in ("/api/v1/status", "/metrics"):
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request("GET", path, headers={"authorization": f"Bearer {office.token}"})
        assert connection.getresponse().status == 404
        connection.close()


def test_the_operator_and_auditors_read_everything(office: Office) -> None:
    call = office.call("notes/burn")
    for token in (office.token, EVE):
        told = office.get(f"/api/v1/calls/{call}/why", token).json
        assert (told["call"]["subject"], told["rule"]["id"]) == ("ann", "no-burning")
        assert office.get("/api/v1/status", token).json["reads_everything"] is True


def test_another_principals_call_does_not_exist(office: Office) -> None:
    call = office.call("notes/read")
    for path in (f"/api/v1/calls/{call}", f"/api/v1/calls/{call}/why"):
        assert office.get(path, ANN).status == 200
        foreign, unknown = office.get(path, BOB), office.get("/api/v1/calls/00000000000zz", BOB)
        assert (foreign.status, unknown.status) == (404, 404)
        assert foreign.json["error"]["message"].replace(call, "X") == unknown.json["error"]["message"].replace(
            "00000000000zz", "X"
        )


def test_a_caller_finds_only_its_own_calls(office: Office) -> None:
    office.call("notes/read")
    office.call("notes/read", token=BOB)
    found = office.get("/api/v1/calls?limit=1000", BOB).json["calls"]
    assert {each["subject"] for each in found} == {"bob"}
    assert office.get("/api/v1/calls?subject=ann", BOB).status == 403
    assert office.get("/api/v1/calls?tenant=other", BOB).status == 403
    assert office.get("/api/v1/calls?tenant=other", office.token).status == 403


@pytest.mark.rule("POL-10")
def test_a_caller_does_not_read_why_it_was_denied(office: Office) -> None:
    call = office.call("notes/burn", token=BOB)
    for path in (f"/api/v1/calls/{call}", f"/api/v1/calls/{call}/why", "/api/v1/calls"):
        body = office.get(path, BOB).body
        assert call.encode() in body
        assert b"no-burning" not in body and b"burnt" not in body
    assert office.post("/api/v1/policy/explain", {"call": "notes/burn"}, BOB).status == 403


@pytest.mark.rule("POL-5")
def test_a_caller_sees_only_what_the_policy_shows(office: Office) -> None:
    tools = {each["name"] for each in office.get("/api/v1/tools", BOB).json["tools"]}
    assert tools == {"notes/read", "notes/lend"}  # lending may be asked for
    servers = office.get("/api/v1/servers", BOB).json["servers"]
    assert [(each["name"], each["tools"], each["pids"]) for each in servers] == [("notes", 2, [])]
    for server in ("cellar", "gone", "nowhere"):
        answer = office.get(f"/api/v1/tools?server={server}", BOB)
        assert answer.status == 404
        assert "Did you mean" not in answer.json["error"]["hint"]


def test_on_a_laptop_nobody_needs_a_credential(laptop: Office) -> None:
    call = laptop.call("notes/read", token="")
    assert laptop.get(f"/api/v1/calls/{call}/why").json["call"]["subject"] == "anonymous"
    assert laptop.get("/api/v1/status").json["reads_everything"] is True
    assert laptop.get("/api/v1/status", "cg_mallory").status == 401


def test_anonymous_callers_beside_keys_read_only_their_own(tmp_path: Path) -> None:
    text = OFFICE.replace("identity:\n", "identity:\n  anonymous: true\n")
    policy = POLICY.replace("    when: tool.readOnly\n", "    to: {subjects: [anonymous]}\n")
    mixed = start(tmp_path / "mixed", text, policy)
    with mixed.running:
        own, other = mixed.call("notes/read", token=""), mixed.call("notes/read")
        assert [each["id"] for each in mixed.get("/api/v1/calls").json["calls"]] == [own]
        assert mixed.get(f"/api/v1/calls/{other}").status == 404
        assert mixed.get("/api/v1/status").json["reads_everything"] is False


def test_nobody_is_anonymous_on_an_admin_listener_that_others_reach(tmp_path: Path) -> None:
    from tests.office import LAPTOP

    exposed = start(tmp_path / "exposed", "admin_listen: 0.0.0.0:0\n" + LAPTOP)
    with exposed.running:
        for path in ("/api/v1/status", "/api/v1/calls", "/metrics"):
            assert exposed.get(path).status == 401
            assert exposed.get(path, exposed.token).status == 200


def test_metrics_are_open_on_loopback(office: Office) -> None:
    answer = office.get("/metrics")
    assert answer.status == 200
    assert b"# TYPE callgate_" in answer.body
