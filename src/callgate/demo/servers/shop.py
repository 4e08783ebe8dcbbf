"""The shop: orders to look up and to refund, and a report that takes its time."""

from __future__ import annotations

import asyncio
from typing import Any

from callgate.demo.servers.protocol import DemoTool, Offer, Tell, ToolFailure

ORDERS: dict[int, dict[str, Any]] = {
    17: {"order": 17, "customer": "ada", "item": "kettle", "total": 120},
    18: {"order": 18, "customer": "bo", "item": "desk lamp", "total": 310},
    19: {"order": 19, "customer": "ada", "item": "bookcase", "total": 940},
}
REGIONS = ("north", "east", "south", "west")


class Shop:
    """``pause`` is how long one part of the report takes, in seconds."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._refunded: dict[int, float] = {}

    def offer(self) -> Offer:
        order = {"order": int}
        report = DemoTool("sales_report", "Sales by region.", {}, self.sales_report, reads=True, tells=True)
        tools = [
            DemoTool("search_orders", "Orders of one customer.", {"customer": str}, self.search_orders, reads=True),
            DemoTool("get_order", "One order.", order, self.get_order, reads=True),
            DemoTool("refund", "Pay money back.", {**order, "amount": float}, self.refund),
            report,
        ]
        return Offer("shop", tools, modern=True)

    def search_orders(self, customer: str) -> dict[str, Any]:
        return {"orders": [found for found in ORDERS.values() if found["customer"] == customer]}

    def get_order(self, order: int) -> dict[str, Any]:
        if order not in ORDERS:
            raise ToolFailure(f"There is no order {order}.")
        return {**ORDERS[order], "refunded": self._refunded.get(order, 0)}

    def refund(self, order: int, amount: float) -> dict[str, Any]:
        left = self.get_order(order)["total"] - self._refunded.get(order, 0)
        if not 0 < amount <= left:
            raise ToolFailure(f"At most {left} can be refunded on order {order}.")
        self._refunded[order] = self._refunded.get(order, 0) + amount
        return {"order": order, "refunded": self._refunded[order]}

    async def sales_report(self, tell: Tell) -> dict[str, Any]:
        for done, _ in enumerate(REGIONS, 1):
            await asyncio.sleep(self._pause)
            await tell(done, len(REGIONS))
        return {"regions": dict.fromkeys(REGIONS, 1370)}
