"""The one stream on which a modern server tells of changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.config.model import Server
from callgate.types import Answer, Conduct, News, Permitted
from tests.gateway.tellers import Teller, serve
from tests.servers.mcp_http import ModernServer
from tests.servers.raw_http import RawServer
from tests.upstream.house import House, permitted, stdio, until

pytestmark = pytest.mark.anyio

LISTEN = "subscriptions/listen"
ALL = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
UPDATED = "notifications/resources/updated"


class Ears(House):
    """A house that remembers the news."""

    def __init__(self, folder: Path, **servers: Server) -> None:
        super().__init__(folder, **servers)
        self.news: list[News] = []
        self.upstreams._ears = type(self.upstreams._ears)(
            self.listings.append, self.statuses.append, self.news.append, self.upstreams._ears.question
        )

    def wish(self, uri: str, number: int, server: str = "s") -> Permitted:
        made = permitted(server, f"resource:{uri}", {})
        call = msgspec.structs.replace(made.call, id=number, method="resources/subscribe", params={"uri": uri})
        return Permitted(call, made.verdict)

    async def subscribe(self, uri: str, number: int) -> Answer:
        return await self.upstreams.watch(self.wish(uri, number), Conduct())


def asked(server: RawServer) -> list[dict[str, Any]]:
    return [each.message for each in server.requests if each.message["method"] == LISTEN]


def filters(server: RawServer) -> list[Any]:
    return [each["params"]["notifications"] for each in asked(server)]


async def test_it_listens_for_what_the_server_offers_before_it_lists(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Ears(tmp_path, s=Server(url=server.url)) as house:
        assert filters(server) == [ALL]
        methods = [each.message["method"] for each in server.requests]
        assert methods.index(LISTEN) < methods.index("tools/list")
        head = next(each for each in server.requests if each.message["method"] == LISTEN).headers
        assert (head["mcp-method"], head["mcp-protocol-version"]) == (LISTEN, "2026-07-28")
        assert "mcp-name" not in head
        behaviour: Any = server.handler
        listed = len(house.listings)
        behaviour.tell("notifications/tools/list_changed")
        await until(lambda: len(house.listings) > listed)
        assert [each.method for each in house.news] == ["notifications/tools/list_changed"]


@pytest.mark.rule("SUB-8")
async def test_wishes_go_into_one_new_stream_and_the_old_one_ends_after_it(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Ears(tmp_path, s=Server(url=server.url)) as house:
        behaviour: Any = server.handler
        await asyncio.gather(*[house.subscribe(f"note:{n}", n) for n in range(5)])
        await until(lambda: len(behaviour.now) == 1)
        assert filters(server)[-1] == {**ALL, "resourceSubscriptions": [f"note:{n}" for n in range(5)]}
        assert len(filters(server)) <= 3  # the first, and those of the five
        ids = [each["id"] for each in asked(server)]
        assert len(set(ids)) == len(ids)
        behaviour.tell(UPDATED, uri="note:3")
        await until(lambda: any(each.params.get("uri") == "note:3" for each in house.news))
        for n in range(5):
            house.upstreams.release(house.wish(f"note:{n}", n).call)
        await until(lambda: behaviour.wanted == [] and len(behaviour.now) == 1)


async def test_while_a_new_filter_is_not_acknowledged_the_old_stream_tells(tmp_path: Path) -> None:
    async with serve(Teller()) as server, Ears(tmp_path, s=Server(url=server.url)) as house:
        behaviour: Any = server.handler
        await house.subscribe("note:1", 1)
        behaviour.mute = asyncio.Event()
        waiting = asyncio.create_task(house.subscribe("note:2", 2))
        await until(lambda: len(filters(server)) == 3)
        behaviour.tell(UPDATED, uri="note:1")
        await until(lambda: [each.params for each in house.news if each.method == UPDATED])
        assert not waiting.done()
        behaviour.mute.set()
        assert (await waiting).error is None


@pytest.mark.rule("SUB-11")
@pytest.mark.parametrize("how", ["reset", "finish"])
async def test_after_an_end_it_listens_again_and_says_what_may_have_been_missed(tmp_path: Path, how: str) -> None:
    async with serve(Teller()) as server, Ears(tmp_path, s=Server(url=server.url)) as house:
        behaviour: Any = server.handler
        await house.subscribe("note:1", 1)
        await until(lambda: len(behaviour.now) == 1)
        house.news.clear()
        last = behaviour.now[0]
        last.peer.reset() if how == "reset" else last.finish()
        await until(lambda: len(house.news) >= 4)
        told = {(each.method, each.params.get("uri")) for each in house.news}
        kinds = ("tools", "prompts", "resources")
        assert told == {(f"notifications/{kind}/list_changed", None) for kind in kinds} | {(UPDATED, "note:1")}


async def test_a_server_that_knows_no_listen_is_asked_once(tmp_path: Path) -> None:
    async with RawServer(ModernServer()) as server, Ears(tmp_path, s=Server(url=server.url)) as house:
        assert filters(server) == [{"toolsListChanged": True}]
        with pytest.raises(Exception, match="offers no subscriptions"):
            await house.subscribe("note:1", 1)
        assert len(filters(server)) == 1


async def test_one_bad_wish_spoils_no_other(tmp_path: Path) -> None:
    async with serve(Teller(deaf_to=("note:bad",))) as server, Ears(tmp_path, s=Server(url=server.url)) as house:
        good, bad = await asyncio.gather(
            house.subscribe("note:1", 1), house.subscribe("note:bad", 2), return_exceptions=True
        )
        assert isinstance(good, Answer)
        assert good.error is None
        assert "does not tell" in str(bad)
        behaviour: Any = server.handler
        await until(lambda: filters(server)[-1].get("resourceSubscriptions") == ["note:1"])
        await until(lambda: behaviour.wanted == ["note:1"])


@pytest.mark.rule("SUB-6")
async def test_over_stdio_it_listens_again_after_a_restart(tmp_path: Path) -> None:
    async with Ears(tmp_path, s=stdio("modern", "teller", protocol="modern")) as house:

        async def seen() -> list[Any]:
            said = await house.ask("s", "seen")
            return [each["params"]["notifications"] for each in said["seen"] if each["method"] == LISTEN]

        assert await seen() == [{"toolsListChanged": True}]
        await house.subscribe("note:1", 1)
        assert await seen() == [
            {"toolsListChanged": True},
            {"resourceSubscriptions": ["note:1"], "toolsListChanged": True},
        ]
        cancelled = (await house.ask("s", "seen"))["seen"]
        await house.ask("s", "touch", {"uri": "note:1"})
        await until(lambda: [each.params["uri"] for each in house.news if each.method == UPDATED] == ["note:1"])
        assert any(each["method"] == "notifications/cancelled" for each in cancelled)
        with pytest.raises(Exception, match="3"):
            await house.ask("s", "die")
        await until(lambda: house.status("s").state == "ready" and house.status("s").restarts == 1)
        assert await seen() == [{"resourceSubscriptions": ["note:1"], "toolsListChanged": True}]


@pytest.mark.rule("SUB-5")
@pytest.mark.parametrize("how", ["cancelled", "result", "both"])
async def test_over_stdio_a_server_may_end_it_in_either_way(tmp_path: Path, how: str) -> None:
    async with Ears(tmp_path, s=stdio("modern", "teller", protocol="modern")) as house:
        await house.ask("s", "unlisten", {"how": how})
        await until(lambda: any(each.method == "notifications/tools/list_changed" for each in house.news))
        said = (await house.ask("s", "seen"))["seen"]
        assert len([each for each in said if each["method"] == LISTEN]) == 2
