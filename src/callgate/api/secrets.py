"""The stored secrets, by name. No operation gives a value."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from callgate.api.reader import Reader
from callgate.api.shapes import Secrets, SecretShown
from callgate.identity import users

if TYPE_CHECKING:
    from callgate.gateway import House


async def secrets(house: House, reader: Reader) -> Secrets:
    """For readers of everything."""
    reader.only_if_everything()
    rows = await asyncio.to_thread(house.secrets.store.all)
    used = users(house.settings)
    return Secrets(
        [
            SecretShown(row.name, row.version, _time(row.created_at), _time(row.updated_at), used.get(row.name, []))
            for row in rows
        ]
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
