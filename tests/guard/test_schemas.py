"""Schemas are written by strangers: what they may ask for is bounded before they are used."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from callgate.guard.costs import NODES, Unusable
from callgate.guard.schemas import DIALECTS, Schema


def nested(depth: int, inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """A web server that writes down what it is asked."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.rule("GRD-1", "RS-15", "SCH-4")
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "URL/a"},
        {"properties": {"a": {"$ref": "URL/a#/x"}}},
        {"$dynamicRef": "URL/a#x"},
        {"$id": "URL/", "$ref": "b.json"},
        {"$id": "URL/", "properties": {"a": {"$id": "sub/", "$ref": "c"}}},
        {"$defs": {"never used": {"$ref": "URL/a"}}},
        {"properties": {"enum": {"$ref": "URL/a"}}},
        {"x-unknown": {"$ref": "URL/a"}},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "//127.0.0.1/x"},
        {"$ref": "#/nowhere"},
        {"$ref": "#nobody"},
        {"$ref": "data:,true"},
    ],
)
def test_what_leads_out_of_a_schema_is_refused_and_not_fetched(
    schema: dict[str, Any], canary: tuple[str, list[str]]
) -> None:
    import json

    url, seen = canary
    with pytest.raises(Unusable, match="leads out of it"):
        Schema(json.loads(json.dumps(schema).replace("URL", url)))
    assert seen == []


@pytest.mark.rule("SCH-4")
@pytest.mark.parametrize("dialect", ["$schema", "URL"])
def test_a_dialect_that_is_not_known_is_refused_and_not_fetched(dialect: str, canary: tuple[str, list[str]]) -> None:
    url, seen = canary
    with pytest.raises(Unusable, match=r"dialect .* is not supported"):
        Schema({"$schema": f"{url}/dialect" if dialect == "URL" else "urn:nobody:knows"})
    assert seen == []


@pytest.mark.rule("SCH-1")
def test_without_a_dialect_a_schema_is_2020_12() -> None:
    pair = {"prefixItems": [{"type": "integer"}], "items": False}
    assert Schema(pair).mistakes([1, 2], 10) and not Schema(pair).mistakes([1], 10)
    assert not Schema({**pair, "$schema": "http://json-schema.org/draft-07/schema#", "items": {}}).mistakes(["x"], 10)
    for uri in DIALECTS:
        assert Schema({"$schema": uri, "type": "string"}).mistakes(1, 1)
        assert Schema({"$schema": f"{uri}#", "type": "string"}).mistakes(1, 1)


@pytest.mark.rule("SCH-5")
@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "without end"),
        ({"allOf": [{"$ref": "#"}]}, "without end"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "end"),
        ({"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}]}, "without end"),
        ({"not": nested(100, {})}, "deeper than"),
        ({"anyOf": [{"type": "string"}] * (NODES + 1)}, "more than"),
        ({"pattern": "((a{1,1000}){1,1000}){1,1000}"}, "no valid schema"),
        ({"pattern": "("}, "no valid schema"),
        ({"type": "nothing"}, "no valid schema"),
        (True, "not an object"),
        (None, "not an object"),
        ([], "not an object"),
        ("x", "not an object"),
    ],
)
def test_schemas_that_ask_for_too_much_are_refused(schema: Any, why: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(Unusable, match=why):
        Schema(schema)
    assert time.perf_counter() - begun < 2


def doubling(levels: int) -> dict[str, Any]:
    """Each level is evaluated twice by the one above: a page for 2 to the power of ``levels``."""
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)}
    return {"$defs": {**steps, f"d{levels}": {"type": "object"}}, "$ref": "#/$defs/d0"}


BRANCHING = {"anyOf": [{"items": {"$ref": "#"}, "maxItems": 0}, {"items": {"$ref": "#"}, "minItems": 2}]}


@pytest.mark.rule("SCH-5")
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(60), {}),
        ({"items": doubling(60)} | {"$defs": doubling(60)["$defs"]}, [1]),
        (BRANCHING, nested(60)),
        ({"anyOf": [{"additionalProperties": {"$ref": "#"}, "maxProperties": 0}] * 3}, {"a": {"a": {"a": {}}}}),
    ],
)
def test_bombs_do_not_go_off(schema: dict[str, Any], value: Any) -> None:
    """Validated without a bound, these take longer than anybody waits."""
    begun = time.perf_counter()
    Schema(schema).mistakes(value, 1000)
    assert time.perf_counter() - begun < 2


@pytest.mark.rule("SCH-5")
def test_what_cannot_be_checked_in_time_does_not_pass() -> None:
    assert Schema(doubling(60)).mistakes({}, 2) == ["(whole): checking it would take too long"]
    assert Schema(BRANCHING).mistakes(nested(50), 200) == ["(whole): checking it would take too long"]
    assert Schema(BRANCHING).mistakes(nested(500), 2000) != []
    assert Schema({"type": "array", "items": {"type": "integer"}}).mistakes([1] * 1_000_000, 2_000_000) == []


@pytest.mark.rule("SCH-5")
@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(a*)*b", "^(?=a)(a+)+\\1b$", "^(?!x)(a|aa)+$(?<=b)"])
def test_patterns_that_try_forever_are_cut_short(pattern: str) -> None:
    begun = time.perf_counter()
    mistakes = Schema({"pattern": pattern}).mistakes("a" * 50_000 + "!", 50_000)
    assert time.perf_counter() - begun < 2
    assert mistakes


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"},
        {"$id": "https://e.org/s", "properties": {"a": {"$ref": "o"}}, "$defs": {"o": {"$id": "o", "type": "array"}}},
        {"properties": {"a": {"$ref": "#there"}}, "$defs": {"x": {"$anchor": "there", "type": "array"}}},
        {"properties": {"$ref": {"type": "string"}, "enum": {"type": "string"}, "a": {"type": "array"}}},
        {"properties": {"a": {"default": {"$ref": "https://example.org/"}, "type": "array"}}},
        {"definitions": {"a/b": {"type": "array"}}, "properties": {"a": {"$ref": "#/definitions/a~1b"}}},
    ],
)
def test_references_inside_are_followed(schema: dict[str, Any]) -> None:
    assert Schema(schema).mistakes({"next": {"next": {}}}, 20) == []


def test_a_filter_of_filters_can_be_used() -> None:
    """A usual schema that doubles with every level: small instances pass, and huge ones are not tried."""
    kinds = [
        {"properties": {"is": {"const": kind}, "of": {"type": "array", "items": {"$ref": "#"}}}, "required": ["is"]}
        for kind in ("and", "or")
    ]
    schema = Schema({"type": "object", "oneOf": kinds})
    value: dict[str, Any] = {"is": "and", "of": []}
    for kind in ("or", "and", "or", "and"):
        value = {"is": kind, "of": [value, value]}
    assert schema.mistakes(value, 1500) == []


def test_mistakes_say_where_and_what_without_the_value() -> None:
    schema = Schema(
        {
            "type": "object",
            "required": ["n"],
            "additionalProperties": False,
            "properties": {"n": {"type": "integer"}, "to": {"items": {"enum": ["a", "b"]}}},
        }
    )
    assert schema.mistakes({"n": "s3cret", "to": ["a", "s3cret"]}, 50) == [
        '/n: the value is not of type "integer"',
        '/to/1: the value is not one of "a" or "b"',
    ]
    assert schema.mistakes({}, 2) == ['(whole): "n" is a required property']
    assert max(map(len, schema.mistakes({"n": 1, "x" * 5000: 1}, 5000))) < 300
    many = Schema({"items": {"type": "string"}}).mistakes(list(range(1000)), 4000)
    assert len(many) == 5


@pytest.mark.rule("SCH-5")
@pytest.mark.parametrize(
    ("items", "value"),
    [
        ({"required": [f"k{number}" for number in range(2000)]}, {"k": 1}),
        ({"enum": [{"a": number} for number in range(20_000)]}, {"a": -1}),
        ({"enum": [f"s{number}" for number in range(20_000)]}, "x"),
    ],
    ids=["required", "objects", "texts"],
)
def test_mistakes_without_number_are_not_all_looked_for(items: Any, value: Any) -> None:
    schema, values = Schema({"items": items}), [value] * 2000
    begun = time.perf_counter()
    [said] = schema.mistakes(values, 20_000)
    assert said.startswith("/0")
    assert time.perf_counter() - begun < 2


@pytest.mark.rule("SCH-5")
def test_mistakes_that_references_double_are_not_all_looked_for() -> None:
    definitions: dict[str, Any] = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(12)}
    definitions["d12"] = {"required": [f"k{number}" for number in range(500)]}
    schema = Schema({"$defs": definitions, "$ref": "#/$defs/d0"})
    begun = time.perf_counter()
    assert len(schema.mistakes({}, 2)) == 1
    assert time.perf_counter() - begun < 2


@pytest.mark.rule("SCH-5")
def test_patterns_of_names_are_counted() -> None:
    schema = Schema({"patternProperties": {f"a{number}$": True for number in range(3000)}})
    values = {f"b{number}": 1 for number in range(3000)}
    assert schema.mistakes(values, 60_000) == ["(whole): checking it would take too long"]
    assert schema.mistakes({"b": 1}, 7) == []
