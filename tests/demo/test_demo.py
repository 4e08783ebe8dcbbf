"""`callgate up --demo` as somebody meets it: what it shows, what it leaves behind, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from callgate.demo.clients import ModernClient
from callgate.egress import HttpPool
from callgate.types import JSON
from tests.demo.run import LIMIT, READY, Demo


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, int]]:
    with Demo(tmp_path_factory.mktemp("demo"), CALLGATE_DEMO_STAY="0") as demo:
        yield demo, demo.ended()


def test_it_plays_once_and_ends_well(played: tuple[Demo, int]) -> None:
    demo, status = played
    assert status == 0, demo.written()
    assert re.search(READY, demo.written())
    assert demo.err.read_text("utf-8") == ""


def test_it_leaves_nothing_behind(played: tuple[Demo, int]) -> None:
    demo, _ = played
    assert str(demo.temporary / "callgate-DEMO-") in demo.written()
    demo.nothing_left()


@pytest.mark.parametrize(
    "row",
    [
        "support shop/search_orders customer=ada allowed reading",
        "support shop/refund order=17 amount=40 allowed support-acts",
        "support shop/refund order=18 amount=900 denied big-refunds",
        "analyst shop/refund order=17 amount=15 denied (default)",
        "analyst notes/read name=private/pay denied private-notes",
        "support notes/read name=private/pay allowed reading",
        "support notes/delete name=ada denied no-deletes",
        "support shop/get_order order=99 error reading",
        "analyst shop/sales_report allowed reading",
        "stranger (no valid key) refused",
    ],
)
def test_every_kind_of_verdict_is_shown(played: tuple[Demo, int], row: str) -> None:
    assert row in played[0].rows()


def test_mail_to_the_outside_is_denied(played: tuple[Demo, int]) -> None:
    mails = [row for row in played[0].rows() if "mailer/send" in row]
    assert [re.sub(r"mailer/send to=(\w+)@.* (?=allowed|denied)", r"\1 ", row) for row in mails] == [
        "support kim allowed support-acts",
        "support eve denied outside-mail",
        "analyst kim denied (default)",
    ]


def test_the_two_agents_see_different_lists(played: tuple[Demo, int]) -> None:
    lists = [row for row in played[0].rows() if "tools/list" in row]
    assert lists == ["support tools/list 9 of 10 tools filtered", "analyst tools/list 6 of 10 tools filtered"]


def test_nothing_fails_that_should_not(played: tuple[Demo, int]) -> None:
    demo, _ = played
    assert not [row for row in demo.rows() if " failed" in row]
    assert "23 calls" in demo.written()
    assert "13 allowed, 8 denied, 1 error, 1 refused. Lists filtered: 2." in demo.written()


def test_progress_is_shown_before_the_report_has_ended(played: tuple[Demo, int]) -> None:
    text = played[0].written()
    told = re.findall(r"analyst +shop/sales_report has done (\d) of 4", text)
    assert told == ["1", "2", "3", "4"]
    assert re.search(r"has done 1 of 4.*shop/sales_report +allowed", text, re.DOTALL)


def test_without_a_terminal_there_are_plain_lines_of_80_columns(played: tuple[Demo, int]) -> None:
    text = played[0].out.read_text("utf-8")
    assert "\x1b" not in text
    prose = [line for line in text.splitlines() if "python" not in line and "callgate-DEMO-" not in line]
    assert [line for line in prose if len(line) > 80] == []


def test_it_says_how_to_make_the_first_own_call(played: tuple[Demo, int]) -> None:
    text = played[0].written()
    for words in (
        "CALLGATE_URL",
        "CALLGATE_TOKEN",
        "call shop/search_orders customer=ada",
        "logs -f",
        "up -c mcp.json",
    ):
        assert words in text
    assert re.search(r"why [0-9a-hjkmnp-tv-z]{13}\b", text)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_it_stays_for_own_calls_until_it_is_interrupted(tmp_path: Path) -> None:
    with Demo(tmp_path, CALLGATE_DEMO_STAY="60") as demo:
        demo.wait_for("Your calls appear here", LIMIT)
        found = re.search(r"CALLGATE_URL=(\S+)\n.*CALLGATE_TOKEN=(\S+)", demo.written())
        assert found is not None
        said = asyncio.run(_call(f"{found[1]}/mcp", found[2]))
        assert said["error"]["data"]["callId"]
        demo.wait_for(r"you +shop/refund order=17 amount=900 +denied +big-refunds", LIMIT)
        demo.note_children()
        demo.process.send_signal(signal.SIGINT)
        assert demo.ended() == 0, demo.written()
        assert "Traceback" not in demo.written()
        demo.nothing_left()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_it_can_be_interrupted_while_the_agents_are_at_work(tmp_path: Path) -> None:
    with Demo(tmp_path, CALLGATE_DEMO_STAY="0") as demo:
        demo.wait_for("tools/list", LIMIT)
        demo.note_children()
        demo.process.send_signal(signal.SIGINT)
        assert demo.ended() == 0, demo.written()
        assert "Traceback" not in demo.written()
        demo.nothing_left()


async def _call(url: str, token: str) -> JSON:
    pool = HttpPool(proxy="")
    try:
        client = ModernClient(pool, url, token)
        assert await client.list() == 9
        return await client.call("shop__refund", {"order": 17, "amount": 900})
    finally:
        await pool.aclose()
