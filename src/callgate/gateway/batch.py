"""JSON-RPC batches: version 2025-03-26 has them, no other version does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.errors import CallgateError, ProtocolError
from callgate.gateway import wire
from callgate.gateway.dispatch import in_session
from callgate.gateway.inbound import Inbound, Reply, id_of
from callgate.gateway.replies import called_off, failure

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.session import Session

log = logging.getLogger("callgate.gateway")

VERSION = "2025-03-26"
LIMIT = 100


async def answer_batch(
    messages: Sequence[Any], session: Session, inbound: Callable[[Any], Inbound], house: House
) -> Reply:
    """Answer every message of a batch, all at once; one that is wrong spoils no other. ``inbound`` wraps one."""
    if session.version != VERSION:
        raise ProtocolError(f"Batches are not part of version {session.version}.")
    if not 0 < len(messages) <= LIMIT:
        raise ProtocolError(f"A batch holds 1 to {LIMIT} messages.")
    replies = await asyncio.gather(*[_one(inbound(each), house) for each in messages])
    bodies = [reply.body for reply in replies if reply.body]
    return Reply(b"[" + b",".join(bodies) + b"]") if bodies else Reply(status=202)


async def _one(inbound: Inbound, house: House) -> Reply:
    message: Any = inbound.message
    id = id_of(message)
    try:
        if isinstance(message, dict) and message.get("method") == "initialize":
            raise ProtocolError("initialize must not be part of a batch.")
        return await in_session(inbound, house)
    except CallgateError as error:
        return failure(id, error, modern=False)
    except asyncio.CancelledError:
        return called_off(id)  # this message alone, or all of them: then ``gather`` raises
    except Exception:
        log.exception("a message of a batch could not be answered")
        return failure(id, ProtocolError("Internal error.", wire.INTERNAL_ERROR), modern=False)


def part(batch: Inbound, message: Any) -> Inbound:
    """One message of a batch, as if it had come alone."""
    return msgspec.structs.replace(batch, message=message, size=len(wire.encode(message)))
