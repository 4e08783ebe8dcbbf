"""What becomes of answers: rules that redact, cut or block results."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.errors import Denied
from callgate.policy import Policy
from callgate.policy.paths import JsonPath
from callgate.types import Answer, Principal, RpcError
from tests.policy.cast import call, of_rules, someone, stranger


@pytest.mark.parametrize(
    ("path", "value", "left"),
    [
        ("$.a", {"a": 1, "b": 2}, {"a": "-", "b": 2}),
        ("$.a.b", {"a": {"b": 1}, "b": 1}, {"a": {"b": "-"}, "b": 1}),
        ("$.rows[*].pay", {"rows": [{"pay": 1}, {"pay": 2, "n": 3}]}, {"rows": [{"pay": "-"}, {"pay": "-", "n": 3}]}),
        ("$[1]", [1, 2, 3], [1, "-", 3]),
        ("$..pw", {"pw": 1, "x": [{"pw": {"pw": 2}}]}, {"pw": "-", "x": [{"pw": "-"}]}),
        ("$.x..pw", {"pw": 1, "x": [{"pw": 2}]}, {"pw": 1, "x": [{"pw": "-"}]}),
        ("$['a b'].c", {"a b": {"c": 1}}, {"a b": {"c": "-"}}),
        ("$.*", {"a": 1, "b": [2]}, {"a": "-", "b": "-"}),
        ("$.a[0]", {"a": {"0": 1}}, {"a": {"0": 1}}),
        ("$.no.way", {"a": 1}, {"a": 1}),
        ("$.a.b", {"a": "text"}, {"a": "text"}),
    ],
)
def test_paths(path: str, value: Any, left: Any) -> None:
    before = json.dumps(value)
    assert JsonPath(path).replace(value, "-", []) == left
    assert json.dumps(value) == before


@pytest.mark.parametrize("text", ["", "$", "a", "$a", "$.", "$.a[", "$.a[x]", "$.a b", "$[-1]", "$..a..b", "$.['a]"])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=r"it|step"):
        JsonPath(text)


def result(*texts: str, **more: Any) -> Answer:
    body = {"content": [{"type": "text", "text": text} for text in texts], **more}
    return Answer(json.dumps(body).encode())


def treated(made: Policy, answer: Answer, who: Principal | None = None, **args: Any) -> Any:
    treatment = made.treatment(call(who or someone(), "hr/list", **args))
    return json.loads((made.treated(treatment, answer) if treatment else answer).result)


ALL = {"id": "all", "allow": ["*/*"]}
PAY = {"id": "pay", "result": ["hr/*"], "redact": ["$.rows[*].pay"]}


def test_redaction_reaches_structured_content_json_texts_and_the_same_values_in_words() -> None:
    rows = {"rows": [{"who": "ada", "pay": 90210}]}
    left = treated(of_rules(ALL, PAY), result(json.dumps(rows), "ada gets 90210 a year", structuredContent=rows))
    assert left["structuredContent"] == {"rows": [{"who": "ada", "pay": "[redacted]"}]}
    assert json.loads(left["content"][0]["text"]) == {"rows": [{"who": "ada", "pay": "[redacted]"}]}
    assert left["content"][1]["text"] == "ada gets [redacted] a year"
    assert "90210" not in json.dumps(left)


def test_redaction_reaches_prompts_resources_tasks_and_embedded_resources() -> None:
    made, text = of_rules(ALL, {**PAY, "redact": ["$.pay"]}), json.dumps({"pay": 90210})
    for whole in (
        {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]},
        {"contents": [{"uri": "x:y", "text": text}]},
        {"status": "completed", "result": {"content": [{"type": "text", "text": text}]}},
        {"content": [{"type": "resource", "resource": {"uri": "x:y", "text": text}}]},
        {"completion": {"values": [text]}},
    ):
        assert "90210" not in json.dumps(treated(made, Answer(json.dumps(whole).encode())))


def test_redaction_reaches_what_a_server_says_with_an_error() -> None:
    made = of_rules(ALL, {**PAY, "redact": ["$.pay"]})
    treatment = made.treatment(call(someone(), "hr/list"))
    assert treatment is not None
    told = made.treated(treatment, Answer(error=RpcError(-32000, "pay is 90210", {"pay": 90210}))).error
    assert told == RpcError(-32000, "pay is [redacted]", {"pay": "[redacted]"})


def test_a_result_without_anything_to_redact_stays_equal() -> None:
    answer = result("plain words", '{"not": "pay"}', structuredContent={"x": [1, 2.5, None]}, isError=False)
    assert treated(of_rules(ALL, PAY), answer) == json.loads(answer.result)


def test_what_cannot_be_read_is_blocked() -> None:
    deep = b'{"structuredContent":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_001
    for body in (b"{", deep):
        with pytest.raises(Denied) as caught:
            treated(of_rules(ALL, {**PAY, "redact": ["$..pay"]}), Answer(body))
        assert caught.value.verdict.rule == "pay"


def test_blocking_says_that_the_call_was_made_and_not_why() -> None:
    made = of_rules(ALL, {"id": "no", "result": ["hr/*"], "block": True, "reason": "nobody reads salaries"})
    with pytest.raises(Denied) as caught:
        treated(made, result("secret"))
    assert "was made" in caught.value.message
    assert "salaries" not in caught.value.message
    assert caught.value.verdict.reason == "result blocked by no: nobody reads salaries"


LIMIT = 2048
CUT = of_rules(ALL, {"id": "short", "result": ["hr/*"], "truncate": "2KiB"})


@pytest.mark.parametrize(
    "answer",
    [
        result("x" * 100_000),
        result("ä" * 100_000),
        result('"\\\n' * 50_000),
        result(*["y" * 900] * 50),
        result("z", structuredContent={"rows": ["r" * 100_000]}),
        result("z", _meta={"x": "m" * 100_000}),
        Answer(json.dumps({"content": [{"type": "image", "data": "A" * 100_000, "mimeType": "image/png"}]}).encode()),
        Answer(json.dumps({"contents": [{"uri": "x:y", "text": "t" * 100_000}]}).encode()),
        Answer(json.dumps({"messages": [{"role": "user", "content": {"type": "text", "text": "t" * 9000}}]}).encode()),
        Answer(json.dumps({"result": {"content": [{"type": "text", "text": "t" * 9000}]}, "status": "done"}).encode()),
    ],
)
def test_no_result_is_longer_than_a_rule_lets_it_be(answer: Answer) -> None:
    left = treated(CUT, answer)
    assert len(json.dumps(left, ensure_ascii=False, separators=(",", ":")).encode()) <= LIMIT + 1024
    inner = left.get("result", left)
    assert inner["_meta"]["callgate/truncated"]["bytes"] > LIMIT


def test_short_results_are_not_touched() -> None:
    answer = result("x" * 1000)
    assert CUT.treated(CUT.treatment(call(someone(), "hr/list")), answer) is answer  # type: ignore[arg-type]


def test_what_cannot_be_cut_is_blocked() -> None:
    with pytest.raises(Denied, match="does not allow its result"):
        treated(CUT, Answer(json.dumps({"unknown": "x" * 9000}).encode()))


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=400),
                    lambda each: st.lists(each, max_size=5) | st.dictionaries(st.text(max_size=5), each, max_size=5),
                    max_leaves=30), st.text(max_size=9000))  # fmt: skip
def test_whatever_comes_back_is_short_or_blocked(structured: Any, text: str) -> None:
    try:
        left = treated(CUT, result(text, structuredContent=structured))
    except Denied:
        return
    assert len(json.dumps(left, ensure_ascii=False, separators=(",", ":")).encode()) <= LIMIT + 1024


def test_whom_rules_over_results_are_for() -> None:
    """Doubt makes them apply, strangers do not escape them, and what they do adds up."""
    made = of_rules(
        ALL,
        {**PAY, "to": {"roles": ["hr"]}},
        {"id": "when", "result": ["hr/*"], "redact": ["$.x"], "when": "args.deep"},
        {"id": "reads", "result": ["hr/*"], "truncate": 100, "operations": ["read"]},
        {"id": "tried", "result": ["hr/*"], "block": True, "shadow": True},
    )

    def rules(who: Principal, **args: Any) -> tuple[str, ...]:
        found = made.treatment(call(who, "hr/list", **args))
        return found.rules if found else ()

    assert rules(someone("a", "hr"), deep=False) == ("pay", "reads")
    assert rules(someone("a"), deep=True) == ("when", "reads")
    assert rules(someone("a")) == ("when", "reads")
    assert rules(stranger(), deep=True) == ("when", "reads")
    tried = made.treatment(call(someone("a"), "hr/list"), shadow=True)
    assert tried is not None
    assert (tried.rules, tried.effect) == (("tried",), "block")
    assert made.treatment(call(someone("a"), "other/x")) is None


@pytest.mark.parametrize(
    "whole",
    [
        # What SDKs make of a tool that returns a text: the text, and an object around it.
        {"content": [{"type": "text", "text": '{"pay": 90210}'}], "structuredContent": {"result": '{"pay": 90210}'}},
        {"structuredContent": {"pay": 90210, "said": "ada gets 90210", "more": ["90210 a year"]}},
        {"content": [{"type": "text", "text": '{"pay": 90210, "score": NaN}'}]},
        {"content": [{"type": "text", "text": '{"pay": 90210, "odd": "\\ud800"}'}]},
        {"content": [{"type": "text", "text": '\ufeff{"pay": 90210}'}]},
        {"content": [{"type": "text", "text": json.dumps({"inner": json.dumps({"pay": 90210})})}]},
        {"content": [{"type": "resource", "text": "x", "resource": {"uri": "x:y", "text": '{"pay": 90210}'}}]},
        {"content": [{"type": "resource_link", "uri": "x:y", "description": '{"pay": 90210}'}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": '{"pay": 90210}'}]}]},
        {"messages": [], "description": '{"pay": 90210}'},
        {"taskId": "t", "status": "failed", "error": {"code": 1, "message": "90210", "data": {"pay": 90210}}},
        {"taskId": "t", "status": "failed", "error": {"code": 1, "message": '{"pay": 90210}'}},
        {"taskId": "t", "status": "working", "statusMessage": '{"pay": 90210}'},
        {"content": [{"type": "json", "json": {"pay": 90210}}]},  # a kind of content that nobody knows
        {
            "content": [
                {"type": "tool_result", "toolUseId": "t", "content": [{"type": "text", "text": '{"pay": 90210}'}]}
            ]
        },
        {"content": '{"pay": 90210}'},
        {"content": {"pay": 90210}},
        {"status": {"pay": 90210}},
        {"status": "completed", "statusMessage": "90210!", "result": {"structuredContent": {"pay": 90210}}},
        [{"pay": 90210}],
        {"result": [{"pay": 90210}]},
        {"result": '{"pay": 90210}'},
        {"task": {"taskId": "t", "status": "working", "statusMessage": '{"pay": 90210}'}},
        {"rows": [{"pay": 90210}]},  # of a method that callgate does not know
    ],
)
def test_no_place_of_an_answer_keeps_what_is_redacted(whole: Any) -> None:
    left = treated(of_rules(ALL, {**PAY, "redact": ["$..pay"]}), Answer(json.dumps(whole).encode()))
    assert "90210" not in json.dumps(left)
    assert "[redacted]" in json.dumps(left)


def test_redaction_leaves_what_the_protocol_works_by() -> None:
    whole = {
        "resultType": "task", "taskId": "task", "status": "working", "requestState": "s", "isError": False,
        "task": {"taskId": "task", "status": "working"},
        "content": [
            {"type": "text", "text": "words"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "x:y", "blob": "AAAA"}, "annotations": {"priority": 1}},
        ],
        "messages": [{"role": "user", "content": {"type": "text", "text": "words"}}],
    }  # fmt: skip
    made = of_rules(ALL, {**PAY, "redact": ["$..*"]})
    assert treated(made, Answer(json.dumps(whole).encode())) == whole


def test_a_large_table_keeps_its_other_columns() -> None:
    rows = {"rows": [{"who": f"name {at}", "pay": f"amount {at}", "same": f"amount {at}"} for at in range(1_500)]}
    left = treated(of_rules(ALL, PAY), result(structuredContent=rows))["structuredContent"]["rows"]
    assert left[1_499] == {"who": "name 1499", "pay": "[redacted]", "same": "[redacted]"}


def test_errors_that_hold_json_are_redacted_and_those_that_cannot_be_read_are_blocked() -> None:
    made = of_rules(ALL, {**PAY, "redact": ["$..pay"]})
    treatment = made.treatment(call(someone(), "hr/list"))
    assert treatment is not None
    told = made.treated(treatment, Answer(error=RpcError(-32000, '{"pay": 90210}', {"x": '{"pay": 90210}'}))).error
    assert "90210" not in str(told)
    deep: Any = 1
    for _ in range(9_000):
        deep = [deep]
    with pytest.raises(Denied):
        made.treated(treatment, Answer(error=RpcError(-32000, "no", deep)))
