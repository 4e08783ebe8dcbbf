from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from callgate.types import Answer, RpcError
from callgate.upstream.masking import MOST, Mask
from callgate.upstream.serverlog import GARBLED, MAX_LINE, ServerLog
from tests.upstream.house import House, stdio

SECRET = "canary-0123456789"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"


def mask_of(*values: str) -> Mask:
    mask = Mask()
    for value in values:
        mask.learn(value)
    return mask


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (SECRET, f"a {SECRET} b {SECRET}"),
        ("Bearer canary-0123456789", "the token canary-0123456789 is old"),
        ('canary"quoted\\ü', json.dumps({"k": 'canary"quoted\\ü'})),
        ('canary"quoted\\ü', json.dumps({"k": 'canary"quoted\\ü'}, ensure_ascii=False)),
        (PEM, PEM),
        (PEM, "line: MIIEvQIBADANBgkq"),
        ("canary-wöürd", "a canary-wöürd"),
    ],
)
def test_a_value_is_hidden_in_every_form_that_it_may_have(value: str, said: str) -> None:
    for shown in (mask_of(value).text(said), mask_of(value).line(said.encode()).decode()):
        assert "********" in shown
        assert not any(part in shown for part in ("canary", "MIIE"))


def test_of_two_values_that_begin_alike_the_longer_one_is_hidden_whole() -> None:
    assert mask_of("canary-01", "canary-0123").text("a canary-0123 b") == "a ******** b"


def test_short_values_are_words_and_stay() -> None:
    assert mask_of("true", "1234567").text("true 1234567") == "true 1234567"


@pytest.mark.parametrize("size", range(8, len(SECRET)))
def test_a_value_that_was_cut_off_at_the_end_is_hidden(size: int) -> None:
    assert mask_of(SECRET).text(f"got {SECRET[:size]}") == "got ********"


def test_errors_are_searched_at_any_depth_and_results_are_left_alone() -> None:
    mask = mask_of(SECRET)
    data = {"list": [{"header": SECRET}, 5, None, True], SECRET: "name"}
    hidden = mask.answer(Answer(error=RpcError(-1, f"no {SECRET}", data))).error
    assert hidden == RpcError(-1, "no ********", {"list": [{"header": "********"}, 5, None, True], "********": "name"})
    answer = Answer(result=SECRET.encode())
    assert mask.answer(answer) is answer


def test_what_is_nested_too_deep_is_hidden_and_ends_nothing() -> None:
    data: Any = SECRET
    for _ in range(900):
        data = [data]
    assert SECRET not in json.dumps(mask_of(SECRET).value(data))
    assert Mask().value(data) is data


def test_only_so_many_values_are_remembered() -> None:
    mask = mask_of(*(f"value-number-{number:04}" for number in range(MOST + 10)))
    assert mask.text("value-number-0000") == "value-number-0000"
    assert mask.text(f"value-number-{MOST + 9:04}") == "********"


@pytest.mark.anyio
@pytest.mark.parametrize("before", range(MAX_LINE - len(SECRET) - 1, MAX_LINE + 2))
async def test_no_part_of_a_value_is_kept_where_a_long_line_is_cut(tmp_path: Path, before: int) -> None:
    log = ServerLog(tmp_path, "s", mask_of(SECRET))
    line = b"x" * before + SECRET.encode() + b"y" * 100 + b"\n"
    for at in range(0, len(line), 7):
        log.write(line[at : at + 7])
    await log.aclose()
    content = (tmp_path / "s.log").read_bytes()
    assert b"c" not in content and b"789" not in content
    assert not any("canary" in each for each in log.last)


@pytest.mark.anyio
@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize("before", range(GARBLED - len(SECRET) - 1, GARBLED + 2))
async def test_no_part_of_a_value_is_kept_of_stdout_that_is_no_message(tmp_path: Path, before: int) -> None:
    log = ServerLog(tmp_path, "s", mask_of(SECRET))
    log.garbled(b"x" * before + SECRET.encode() + b"y" * 100)
    await log.aclose()
    content = (tmp_path / "s.log").read_bytes().removeprefix(b"[callgate: not JSON-RPC]")
    assert b"c" not in content and b"789" not in content


def test_a_value_in_use_outlives_others_that_are_replaced_again_and_again() -> None:
    mask = Mask()
    for number in range(3 * MOST):  # each connection learns the standing value, and a new one
        mask.learn(SECRET)
        mask.learn(f"rotated-{number:06}")
    assert mask.text(SECRET) == "********"


@pytest.mark.anyio
async def test_what_is_resolved_is_masked_and_what_is_written_plainly_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CG_CANARY", SECRET)
    more: dict[str, Any] = {"env": {"A": "env:CG_CANARY", "B": "a plain value"}}
    async with House(tmp_path, s=stdio(**more)) as house:
        seen = (await house.ask("s", "env"))["env"]
        assert (seen["A"], seen["B"]) == (SECRET, "a plain value")
        mask = house.upstreams._servers["s"]._mask
        assert mask.text(f"{SECRET} and a plain value") == "******** and a plain value"
