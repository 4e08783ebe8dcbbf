from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from callgate.audit import Row, canonical, describe, show_id
from callgate.audit.encode import NOT_ENCODABLE, encode, encode_gap
from callgate.types import Actor, Front, Principal
from tests.audit.records import record

LIMIT = 4096


def body(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row.body)
    return found


@pytest.mark.rule("AUD-5", "POL-8")
def test_a_row_tells_everything_about_a_call() -> None:
    who = Principal(
        "user:ann", "k", tenant="acme", issuer="https://idp.example", roles=("dev", "ops"), via="jwt",
        chain=(Actor("agent:planner", "https://as.example", ("agent",)), Actor("agent:coder")),
    )  # fmt: skip
    row = encode(
        record(
            id=1_795_150_000_123 << 21, principal=who, front=Front("virtual:coder", "2025-11-25", "legacy", "stdio"),
            arguments={"b": [1, {"z": 1, "y": 2}], "a": "x"}, outcome="denied", rule="no-deletes", policy="pv-17",
            reason="deletes need a human", error_code=-31403, duration_ns=1_234_567, upstream_ns=1_000_000,
            bytes_in=321, bytes_out=5123, trace_id="0af7651916cd43dd8448eb211c80319c",
        ),
        "redacted", LIMIT,
    )  # fmt: skip
    text = '{"a":"x","b":[1,{"y":2,"z":1}]}'
    assert f'"args":{text}' in row.body
    assert describe(row) == {
        "id": show_id(1_795_150_000_123 << 21),
        "time": "2026-11-20T04:46:40.123Z",
        "tenant": "acme",
        "subject": "user:ann",
        "server": "git",
        "tool": "status",
        "outcome": "denied",
        "args": json.loads(text),
        "args_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "bytes_in": 321,
        "bytes_out": 5123,
        "chain": [
            {"sub": "agent:planner", "iss": "https://as.example", "roles": ["agent"]},
            {"sub": "agent:coder", "iss": "", "roles": []},
        ],
        "door": "virtual:coder",
        "duration_us": 1234,
        "era": "legacy",
        "error_code": -31403,
        "issuer": "https://idp.example",
        "method": "tools/call",
        "policy": "pv-17",
        "reason": "deletes need a human",
        "roles": ["dev", "ops"],
        "rule": "no-deletes",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "transport": "stdio",
        "upstream_us": 1000,
        "version": "2025-11-25",
        "via": "jwt",
    }


def test_a_body_is_canonical() -> None:
    row = encode(record(arguments={"b": 1, "a": 2}), "full", LIMIT)
    assert row.body == json.dumps(body(row), sort_keys=True, separators=(",", ":"))


def test_the_digest_does_not_depend_on_the_order_of_members() -> None:
    one = encode(record(arguments={"a": {"x": 1, "y": 2}, "b": 3}), "digest", LIMIT)
    other = encode(record(arguments={"b": 3, "a": {"y": 2, "x": 1}}), "digest", LIMIT)
    assert body(one)["args_sha256"] == body(other)["args_sha256"]


@pytest.mark.rule("AUD-13")
def test_secrets_are_redacted_and_the_digest_covers_what_was_sent() -> None:
    arguments = {"user": "ann", "login": {"password": "hunter2"}}
    row = encode(record(arguments=arguments), "redacted", LIMIT)
    assert "hunter2" not in row.body
    assert body(row)["args"] == {"user": "ann", "login": {"password": "[redacted]"}}
    assert body(row)["args_sha256"] == hashlib.sha256(canonical(arguments)).hexdigest()


def test_full_keeps_everything_and_digest_keeps_nothing() -> None:
    arguments = {"password": "hunter2"}
    assert body(encode(record(arguments=arguments), "full", LIMIT))["args"] == arguments
    assert "args" not in body(encode(record(arguments=arguments), "digest", LIMIT))


def test_a_method_without_arguments_has_neither_arguments_nor_digest() -> None:
    assert {"args", "args_sha256"}.isdisjoint(body(encode(record(arguments=None), "full", LIMIT)))


@pytest.mark.parametrize("mode", ["full", "redacted"])
def test_long_arguments_are_cut_with_a_mark(mode: Any) -> None:
    row = encode(record(arguments={"a": "é" * 100}), mode, 50)
    assert body(row)["args"] == '{"a":"' + "é" * 22 + "… [cut: 208 bytes]"
    assert body(row)["args_sha256"] == hashlib.sha256(canonical({"a": "é" * 100})).hexdigest()


def test_the_cut_comes_after_the_redaction() -> None:
    row = encode(record(arguments={"password": "hunter2" * 100, "z": "x" * 100}), "redacted", 60)
    assert "hunter2" not in row.body


def test_a_long_reason_is_cut() -> None:
    assert len(body(encode(record(reason="x" * 100_000), "full", LIMIT))["reason"]) == 1000


def test_huge_numbers_are_kept() -> None:
    assert str(10**40) in encode(record(arguments={"a": 10**40}), "redacted", LIMIT).body


def deep() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), "\ud800", deep()], ids=["foreign", "surrogate", "deep"])
def test_arguments_that_are_not_json_do_not_lose_the_record(value: Any) -> None:
    found = body(encode(record(arguments={"a": value}, rule="r"), "redacted", LIMIT))
    assert found["args"] == NOT_ENCODABLE
    assert found["rule"] == "r"


@pytest.mark.rule("AUD-4")
def test_odd_text_does_not_lose_the_record() -> None:
    who = Principal("user:\ud800", "k", tenant="acmé", issuer="\ud800")
    row = encode(record(principal=who, reason="because \udfff", trace_id="t", policy="p", rule="r"), "full", LIMIT)
    assert (row.subject, row.tenant) == ("user:\\ud800", "acmé")
    assert body(row)["reason"].startswith("because \\udfff [the record could not be encoded whole: UnicodeEncodeError")
    assert [body(row)[name] for name in ("trace_id", "policy", "rule")] == ["t", "p", "r"]


def test_what_is_not_even_text_does_not_lose_the_record() -> None:
    row = encode(record(tool=None, policy=object(), reason="r"), "full", LIMIT)
    assert row.tool == "None"
    assert "TypeError" in body(row)["reason"]


def test_a_gap_has_the_id_of_the_first_dropped_record() -> None:
    row = encode_gap("acme", 5, 9, 3)
    assert row[:6] == (5, "acme", "", "", "", "gap")
    assert body(row) == {
        "dropped": 3,
        "method": "audit/gap",
        "reason": "3 records were dropped because the audit queue was full.",
        "until": show_id(9),
    }
