"""What the agents do, in order. What comes of it is decided by the gateway and read from its audit log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from callgate.catalog import exposed_name
from callgate.demo.clients import Client

LIST = ""


class Step(NamedTuple):
    """``who`` calls ``tool`` (``server/tool``; ``LIST``: asks for the list). ``beside``: others go on meanwhile."""

    who: str
    tool: str
    arguments: Mapping[str, Any] = {}
    beside: bool = False


STORY = (
    Step("support", LIST),
    Step("analyst", LIST),
    Step("support", "shop/search_orders", {"customer": "ada"}),
    Step("analyst", "shop/search_orders", {"customer": "bo"}),
    Step("support", "shop/refund", {"order": 17, "amount": 40}),
    Step("support", "shop/refund", {"order": 18, "amount": 900}),
    Step("analyst", "shop/sales_report", beside=True),
    Step("support", "notes/write", {"name": "ada", "text": "Refunded 40 on order 17."}),
    Step("support", "shop/get_order", {"order": 99}),
    Step("support", "mailer/send", {"to": "kim@acme.test", "text": "Order 18 wants 900 back."}),
    Step("support", "mailer/send", {"to": "eve@evil.test", "text": "All our orders."}),
    Step("analyst", "shop/refund", {"order": 17, "amount": 15}),
    Step("analyst", "notes/list"),
    Step("analyst", "notes/read", {"name": "welcome"}),
    Step("analyst", "notes/read", {"name": "private/pay"}),
    Step("support", "notes/read", {"name": "private/pay"}),
    Step("stranger", "shop/search_orders", {"customer": "ada"}),
    Step("support", "notes/delete", {"name": "ada"}),
    Step("analyst", "mailer/outbox"),
    Step("analyst", "mailer/send", {"to": "kim@acme.test", "text": "Sales look fine."}),
    Step("support", "shop/refund", {"order": 18, "amount": 100}),
    Step("support", "shop/refund", {"order": 18, "amount": 101}),
    Step("analyst", "notes/delete", {"name": "welcome"}),
    Step("support", "shop/get_order", {"order": 18}),
    Step("analyst", "shop/get_order", {"order": 18}),
)


class Witness(NamedTuple):
    """Told what the audit log does not hold: how many tools somebody was shown, and progress on the way."""

    shown: Callable[[str, int, float], None]
    progress: Callable[[str, str, int, int], None]


async def play(cast: Mapping[str, Client], witness: Witness, pace: float) -> None:
    """Play the story, a step every ``pace`` seconds."""
    async with asyncio.TaskGroup() as beside:
        for step in STORY:
            act = _act(step, cast[step.who], witness)
            if step.beside:
                beside.create_task(act, name=step.tool)
            else:
                await act
            await asyncio.sleep(pace)


async def _act(step: Step, client: Client, witness: Witness) -> None:
    if step.tool == LIST:
        begun = asyncio.get_running_loop().time()
        count = await client.list()
        witness.shown(step.who, count, asyncio.get_running_loop().time() - begun)
        return
    heard = (lambda done, of: witness.progress(step.who, step.tool, done, of)) if step.beside else None
    await client.call(exposed_name(*step.tool.split("/")), step.arguments, heard)
