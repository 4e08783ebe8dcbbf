"""What the guard holds back, in the admin API and the commands: who may look and decide, and what is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.fuzz.messages import dump, head
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, Wire, allow, key_of, keys, until
from tests.gateway.tellers import Teller, serve
from tests.gateway.test_pinning import BAD, GOOD, relisted
from tests.gateway.upstreams import http, tool
from tests.office import Done, run

pytestmark = pytest.mark.anyio

WORSE = tool("echo", description="Worse.\x1b[31m\u202e")
PEOPLE = {
    "identity": {
        "keys": [*keys("adam", roles=["admin"]), *keys("aud", roles=["auditor"]), *keys("dev", roles=["dev"])]
    },
    "policy": {"version": 1, "rules": [allow("*/*")]},
}


@asynccontextmanager
async def changed(folder: Path, *, strict: bool = False, **guard: Any) -> AsyncIterator[tuple[Stand, Teller]]:
    """A gateway whose server ``u`` has changed its tool ``echo`` and shows a new one where all are approved."""
    teller = Teller()
    teller.tools = [GOOD]
    settings = {
        **PEOPLE,
        "guard": {"pin": "changes", **guard},
        **({"audit": {"durability": "strict"}} if strict else {}),
    }
    async with serve(teller) as server, Stand(folder, {"u": http(server)}, **settings) as stand:
        await until(lambda: teller.now)
        await relisted(stand, teller, BAD)
        yield stand, teller


async def admin(stand: Stand, path: str, who: str = "", body: Any = None) -> Reply:
    place = urlsplit(stand.house.urls["admin"])
    token = key_of(who) if who else (stand.folder / "data" / "operator.token").read_text().strip()
    headers = [("Host", place.netloc), ("Authorization", f"Bearer {token}")]
    content = b"" if body is None else dump(body)
    if body is not None:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    async with Wire(*await asyncio.open_connection(place.hostname, place.port, limit=2**24)) as wire:
        method = "GET" if body is None else "POST"
        wire.send(head(f"{method} /api/v1/{path} HTTP/1.1", headers) + content)
        return await wire.reply()


@pytest.mark.rule("GRD-2", "GRD-3")
@pytest.mark.parametrize("strict", [False, True])
async def test_a_change_is_looked_at_and_approved(tmp_path: Path, strict: bool) -> None:
    async with changed(tmp_path, strict=strict) as (stand, teller):
        [waiting] = (await admin(stand, "catalog/pending", "aud")).json["pending"]
        assert (waiting["name"], waiting["change"], waiting["held"]) == ("u/echo", True, "quarantined")
        assert waiting["findings"][0]["kind"] == "changed"
        shown = (await admin(stand, "catalog/diff?name=u/echo", "aud")).json
        assert (shown["state"], shown["approved_by"], shown["digest"]) == ("pending", "first seen", waiting["digest"])
        assert [(each["path"], each["kind"]) for each in shown["differences"]] == [
            ("annotations", "removed"), ("description", "changed"),
        ]  # fmt: skip
        assert (await admin(stand, "servers", "aud")).json["servers"][0]["quarantined"] == 1
        body = {"name": "u/echo", "digest": waiting["digest"][:10], "reason": "read it"}
        assert (await admin(stand, "catalog/approve", "adam", body)).json == {"decided": ["u/echo"]}
        assert await stand.tools(who="dev") == ["u__echo"]
        assert (await admin(stand, "catalog/pending", "aud")).json["pending"] == []
        record = next(each for each in await stand.records() if each["method"] == "catalog/approve")
        assert (record["subject"], record["server"], record["tool"], record["outcome"]) == ("adam", "u", "echo", "ok")
        assert record["args"] == {"digest": waiting["digest"], "why": "read it"}
        await relisted(stand, teller, GOOD)
        assert await stand.tools(who="dev") == []


async def test_what_is_rejected_stays_away_and_waits_no_more(tmp_path: Path) -> None:
    async with changed(tmp_path, on_change="warn") as (stand, teller):
        assert await stand.tools(who="dev") == ["u__echo"]
        assert (await admin(stand, "catalog/reject", "adam", {"name": "u/echo"})).status == 200
        assert await stand.tools(who="dev") == []
        assert (await admin(stand, "catalog/pending", "aud")).json["pending"] == [] or stand.house.guard.held_of("u")
        await relisted(stand, teller, GOOD)
        assert await stand.tools(who="dev") == ["u__echo"]
        assert "catalog/reject" in [each["method"] for each in await stand.records()]


async def test_only_admins_decide_and_only_auditors_look(tmp_path: Path) -> None:
    async with changed(tmp_path) as (stand, _):
        for path in ("catalog/pending", "catalog/diff?name=u/echo"):
            assert (await admin(stand, path, "dev")).status == 403
        for who in ("dev", "aud"):
            for path in ("catalog/approve", "catalog/reject"):
                reply = await admin(stand, path, who, {"name": "u/echo"})
                assert reply.status == 403, (who, path)
        assert await stand.tools(who="dev") == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "u/echo", "digest": "0000"}, 404),
        ({"name": "u/nothing"}, 404),
        ({"name": "v/echo"}, 404),
        ({"name": "u"}, 400),
        ({"name": "u/echo", "all": True}, 400),
        ({"name": "u/echo", "more": 1}, 400),
        ({"name": ""}, 400),
    ],
)
async def test_what_is_not_there_is_not_approved(tmp_path: Path, body: Any, status: int) -> None:
    async with changed(tmp_path) as (stand, _):
        assert (await admin(stand, "catalog/approve", "adam", body)).status == status
        assert await stand.tools(who="dev") == []


async def test_the_definition_that_was_looked_at_is_the_one_that_is_approved(tmp_path: Path) -> None:
    """The server changes it once more between the look and the word."""
    async with changed(tmp_path) as (stand, teller):
        [looked] = (await admin(stand, "catalog/pending", "aud")).json["pending"]
        await relisted(stand, teller, WORSE)
        assert (await admin(stand, "catalog/approve", "adam", {"name": "u/echo"})).status == 400  # which one?
        assert (
            await admin(stand, "catalog/approve", "adam", {"name": "u/echo", "digest": looked["digest"]})
        ).status == 200
        assert await stand.tools(who="dev") == []
        await relisted(stand, teller, BAD)
        assert await stand.tools(who="dev") == ["u__echo"]


async def command(stand: Stand, *arguments: str, who: str = "") -> Done:
    env = {"CALLGATE_URL": f"http://127.0.0.1:{stand.port}", "CALLGATE_ADMIN_URL": stand.house.urls["admin"]}
    env |= {"CALLGATE_TOKEN": key_of(who)} if who else {}
    return await asyncio.to_thread(run, *arguments, folder=stand.folder, env=env)


async def test_the_commands(tmp_path: Path) -> None:
    async with changed(tmp_path) as (stand, teller):
        await relisted(stand, teller, WORSE)
        listed = await command(stand, "ls", who="adam")
        assert "callgate catalog pending" in listed.err and listed.rows[0][0] == "u"
        pending = await command(stand, "catalog", "pending", who="adam")
        assert [row[:2] for row in pending.rows] == [["u/echo", "changed"], ["u/echo", "changed"]]
        digest = pending.rows[1][3]
        shown = await command(stand, "catalog", "diff", "u/echo", "--digest", digest, who="adam")
        assert "~ description" in shown.out and "+ Worse." in shown.out
        assert "\x1b" not in shown.out and "\u202e" not in shown.out
        refused = await command(stand, "catalog", "approve", "u/echo", who="adam")
        assert refused.status == 2 and "Several definitions" in refused.err
        denied = await command(stand, "catalog", "approve", "u", "--all", who="aud")
        assert denied.status == 5
        done = await command(stand, "catalog", "approve", "u/echo", "--digest", digest, who="adam")
        assert (done.status, done.err) == (0, "approved: u/echo\n")
        assert await stand.tools(who="dev") == ["u__echo"]
        none = await command(stand, "catalog", "reject", "u/other", "-o", "json", who="adam")
        assert none.status == 4
        as_json = json.loads((await command(stand, "catalog", "pending", "-o", "json", who="adam")).out)
        assert as_json.keys() == {"pending", "findings"}


async def test_everything_of_a_server_at_once(tmp_path: Path) -> None:
    async with changed(tmp_path, pin="all") as (stand, teller):
        await relisted(stand, teller, BAD, tool("one"), tool("two"))
        assert await stand.tools(who="dev") == []
        done = await command(stand, "catalog", "approve", "u", "--all", who="adam")
        assert done.status == 0, done
        assert await stand.tools(who="dev") == ["u__echo", "u__one", "u__two"]
        shown = (await admin(stand, f"catalog/diff?name={quote('u/one')}", "aud")).json
        assert shown["state"] == "approved" and shown["differences"] == []  # nothing waits
