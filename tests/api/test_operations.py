"""What the admin API answers, and that its OpenAPI document says so."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from callgate.api.operations import OPERATIONS
from callgate.api.shapes import CallShown
from callgate.audit import read_filters
from tests.office import EVE, Office


@pytest.fixture(scope="module")
def document(office: Office) -> Any:
    return office.get("/api/v1/openapi.json", office.token).json


def fits(document: Any, operation: str, status: int, body: Any) -> None:
    """The answer is what the document says of that operation and status."""
    path, method = next((each.path, each.method.lower()) for each in OPERATIONS if each.name == operation)
    schema = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema.validate(body, {**schema, "components": document["components"]})


def test_the_document_is_openapi_and_names_every_operation(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    named = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert named == {(each.path, each.method) for each in OPERATIONS}
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_document_names_every_filter(document: Any) -> None:
    named = {each["name"]: "1" for each in document["paths"]["/api/v1/calls"]["get"]["parameters"]}
    named |= {"since": "1h", "until": "1h", "before_id": "0", "after_id": "0", "outcome": "ok"}
    assert read_filters(named).limit == 1


def test_status(office: Office, document: Any) -> None:
    said = office.get("/api/v1/status", office.token).json
    fits(document, "getStatus", 200, said)
    assert said["urls"] == {"mcp": f"{office.url}/mcp", "admin": office.admin}
    assert said["ready"] is True and said["problems"] == {}
    assert said["uptime"] > 0
    assert len(said["policy"]) == 12


def test_servers(office: Office, document: Any) -> None:
    said = office.get("/api/v1/servers", office.token).json
    fits(document, "listServers", 200, said)
    by_name = {each["name"]: each for each in said["servers"]}
    assert by_name["notes"]["state"] == "ready" and by_name["notes"]["pids"]
    assert by_name["notes"]["era"] == "legacy" and by_name["notes"]["tools"] == 12
    assert by_name["gone"]["state"] == "failed" and "no-such-program" in by_name["gone"]["reason"]


def test_tools_of_everything_of_a_server_and_of_a_door(office: Office, document: Any) -> None:
    every = office.get("/api/v1/tools", office.token).json
    fits(document, "listTools", 200, every)
    read = next(each for each in every["tools"] if each["name"] == "notes/read")
    assert (read["exposed"], read["readOnly"], read["destructive"]) == ("notes__read", True, True)
    names = [each["name"] for each in office.get("/api/v1/tools?server=cellar", office.token).json["tools"]]
    assert names and all(name.startswith("cellar/") for name in names)
    door = office.get("/api/v1/tools?door=virtual:reader", office.token).json["tools"]
    assert [each["name"] for each in door] == ["notes/read"]
    own = office.get("/api/v1/tools?door=server:notes", office.token).json["tools"]
    assert {each["exposed"] for each in own} >= {"read", "größe"}


@pytest.mark.parametrize(
    ("path", "status", "near"),
    [
        ("/api/v1/tools?server=cellr", 404, "cellar"),
        ("/api/v1/tools?door=virtual:raeder", 404, "virtual:reader"),
        ("/api/v1/tools?sever=notes", 400, "server"),
        ("/api/v1/calls?outcom=ok", 400, "outcome"),
        ("/api/v1/calls?outcome=okay", 400, "ok"),
        ("/api/v1/calls?limit=0", 400, ""),
        ("/api/v1/calls?limit=1&limit=2", 400, ""),
        ("/api/v1/calls/nonsense", 400, "13 characters"),
        ("/api/v1/calls/38fqvwnhx1r00", 404, "callgate logs"),
        ("/nothing", 404, "openapi.json"),
    ],
)
def test_mistakes_are_told_as_json_with_a_hint(office: Office, path: str, status: int, near: str) -> None:
    answer = office.get(path, office.token)
    assert answer.status == status
    assert set(answer.json["error"]) == {"code", "message", "hint"}
    assert near in answer.json["error"]["hint"]


def test_other_methods_are_refused(office: Office) -> None:
    answer = office.post("/api/v1/status", {}, office.token)
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})
    assert answer.json["error"]["message"]


def test_calls_come_newest_first_in_pages(office: Office, document: Any) -> None:
    made = [office.call("notes/read", f"page={number}") for number in range(3)]
    first = office.get("/api/v1/calls?limit=2&tool=notes/read", office.token).json
    fits(document, "listCalls", 200, first)
    assert [each["id"] for each in first["calls"]] == made[:0:-1]
    second = office.get(f"/api/v1/calls?limit=1&tool=notes/read&before_id={first['next']}", office.token).json
    assert [each["id"] for each in second["calls"]] == made[:1]
    assert first["latest"] >= made[-1]


def test_following_gives_what_was_written_since_in_that_order(office: Office) -> None:
    latest = office.get("/api/v1/calls?limit=1", office.token).json["latest"]
    quiet = office.get(f"/api/v1/calls?after_id={latest}&outcome=timeout", office.token).json
    assert quiet["calls"] == []
    made = [office.call("notes/read"), office.call("notes/burn")]
    more = office.get(f"/api/v1/calls?after_id={quiet['next']}", office.token).json
    assert [each["id"] for each in more["calls"]] == made
    assert more["next"] == made[-1]
    assert office.get(f"/api/v1/calls?after_id={more['next']}", office.token).json["calls"] == []


def test_one_call_and_why(office: Office, document: Any) -> None:
    id = office.call("notes/lend", "days=9")
    call = office.get(f"/api/v1/calls/{id}", EVE).json
    fits(document, "getCall", 200, call)
    assert (call["outcome"], call["rule"], call["args"]) == ("denied", "long-loans", {"days": 9})
    why = office.get(f"/api/v1/calls/{id}/why", EVE).json
    fits(document, "explainCall", 200, why)
    assert why["rule"]["file"].endswith("policy.yaml") and why["rule"]["line"] == 12
    assert why["explanation"]["verdict"] == {
        "effect": "ask", "rule": "long-loans", "reason": call["reason"], "policy": call["policy"],
        "scopes": [], "shadow": None,
    }  # fmt: skip
    assert "args.days = 9" in why["text"]


def test_why_of_what_was_never_judged(office: Office) -> None:
    why = office.get(f"/api/v1/calls/{office.call('notes/raed')}/why", EVE).json
    assert (why["rule"], why["explanation"]) == (None, None)
    assert "no tool had been found" in why["notes"][0]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", {"name": "notes__summary"}),
        ("resources/read", {"uri": "notes+book://index"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "notes__summary"}, "argument": {}}),
    ],
)
def test_why_of_prompts_and_resources_is_told_like_that_of_tools(
    office: Office, method: str, params: dict[str, Any]
) -> None:
    id = office.request(method, params)
    why = office.get(f"/api/v1/calls/{id}/why", EVE).json
    assert why["call"]["method"] == method and why["rule"]["id"] == "developers"
    assert why["explanation"]["verdict"]["rule"] == "developers"
    assert not any("not listed" in note or "Nothing was judged" in note for note in why["notes"])


def test_why_of_a_prompt_and_a_resource_that_were_not_found(office: Office) -> None:
    for kind, id in (
        ("prompt", office.request("prompts/get", {"name": "notes__sumary"})),
        ("resource", office.request("resources/read", {"uri": "book://index"})),
    ):
        notes = office.get(f"/api/v1/calls/{id}/why", EVE).json["notes"]
        assert notes == [f"Nothing was judged: no {kind} had been found."]


def test_explain_knows_prompts_and_resources(office: Office) -> None:
    for name in ("notes/prompt:summary", "notes/resource:book://index"):
        said = office.post("/api/v1/policy/explain", {"call": name}, office.token).json
        assert said["known_tool"] is True
    assert not office.post("/api/v1/policy/explain", {"call": "notes/prompt:sumary"}, office.token).json["known_tool"]


def test_why_says_when_arguments_were_redacted(office: Office) -> None:
    why = office.get(f"/api/v1/calls/{office.call('notes/read', 'api_key=k')}/why", EVE).json
    assert why["call"]["args"] == {"api_key": "[redacted]"}
    assert any("redacted" in note for note in why["notes"])


def test_explain(office: Office, document: Any) -> None:
    question = {"as": {"subject": "zoe", "roles": ["dev"]}, "call": "notes/lend", "args": {"days": 1}}
    said = office.post("/api/v1/policy/explain", question, office.token)
    fits(document, "explainPolicy", 200, said.json)
    assert said.json["explanation"]["verdict"]["rule"] == "developers"
    own = office.post("/api/v1/policy/explain", {"call": "notes/read"}, EVE).json
    assert own["explanation"]["caller"] == "eve" and own["known_tool"] is True


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ({"call": "notes"}, 400),
        ({"call": "notes/read", "rols": []}, 400),
        ({"call": "nots/read"}, 404),
        (b"[" * 100_000, 400),
        (b"{" + b" " * 300_000 + b"}", 413),
    ],
)
def test_a_question_that_is_not_one(office: Office, document: Any, body: Any, status: int) -> None:
    answer = office.post("/api/v1/policy/explain", body, office.token)
    assert answer.status == status
    fits(document, "explainPolicy", status, answer.json)
    assert office.get("/api/v1/status", office.token).status == 200


def test_a_form_is_no_question(office: Office) -> None:
    """What a page can send without being asked first (CORS "simple requests") is not accepted."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        body = json.dumps({"call": "notes/read"}).encode()
        assert office.post("/api/v1/policy/explain", body, office.token, content_type=kind).status == 415


def test_answers_are_not_kept_and_not_sniffed(office: Office) -> None:
    for path in ("/api/v1/status", "/api/v1/calls/nonsense", "/metrics", "/nothing"):
        headers = office.get(path, office.token).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_the_shape_of_a_call_has_every_member_that_a_record_may_have() -> None:
    import callgate.audit.encode as encode

    assert set(encode.Body.__struct_fields__) < set(CallShown.__struct_fields__)
