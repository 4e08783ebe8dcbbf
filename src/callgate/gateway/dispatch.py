"""From a message to its reply, whatever the transport.

A transport hands over an ``Inbound`` (who, through which door, the decoded message) and gets a ``Reply`` back. The
table of methods (``methods.py``) says who answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.errors import CallgateError, ProtocolError
from callgate.gateway import wire
from callgate.gateway.discovery import initialize
from callgate.gateway.inbound import Handler, Inbound, Reply, check_shape, is_response
from callgate.gateway.ladder import envelope
from callgate.gateway.methods import ANSWERED, BY_NAME, UNKNOWN
from callgate.gateway.replies import failure, no_method
from callgate.gateway.session import Session, Transport

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Notifications of legacy clients that are for the servers of their session.
PASSED_ON = ("notifications/roots/list_changed", "notifications/progress")


async def modern(inbound: Inbound, house: House) -> Reply:
    """Answer one message of the modern era: stateless, everything is in the message."""
    if "id" not in inbound.message:
        return Reply(status=202)
    try:
        front = envelope(inbound.message, inbound.headers, inbound.door)
        return await _handler(inbound, "modern")(inbound, front, house)
    except CallgateError as error:
        return failure(inbound.id, error, modern=True)


async def in_session(inbound: Inbound, house: House) -> Reply:
    """Answer one message inside a legacy session; a request is known by its id while it runs, to be cancelled by it."""
    message, session = inbound.message, inbound.session
    assert session is not None
    if is_response(message):
        session.questions.answered(message)
        return Reply(status=202)
    check_shape(message)
    if "id" not in message:
        notified(message, session, house)
        return Reply(status=202)
    key, task = wire.encode(message["id"]), asyncio.current_task()
    if key in session.running:
        raise ProtocolError("A request with this id is still running.")
    assert task is not None
    session.running[key] = task
    try:
        return await _handler(inbound, "legacy")(inbound, session.front, house)
    except CallgateError as error:
        # In this era an HTTP error status is about the transport; a client may not look into its body.
        # What a 403 says is in its header, and there is no other way to say it.
        said = failure(inbound.id, error, modern=False)
        return said if said.challenge else msgspec.structs.replace(said, status=200, headers=b"")
    except asyncio.CancelledError:
        if len(session.questions):
            await asyncio.sleep(0)  # what was asked for it is taken back before it is answered
        raise
    finally:
        del session.running[key]


def start_session(inbound: Inbound, house: House, transport: Transport = "http") -> tuple[Session, Reply]:
    """Answer ``initialize``: a session bound to the principal and the door."""
    session, result = initialize(house, house.view(inbound.door), inbound.principal, inbound.params, transport)
    return session, Reply(wire.result(inbound.id, result), session=session.id)


def notified(message: Mapping[str, Any], session: Session, house: House) -> None:
    """Take a notification of a legacy client."""
    method, params = message["method"], message.get("params") or {}
    if method == "notifications/initialized":
        session.initialized = True
    elif method == "notifications/cancelled":
        task = session.running.get(wire.encode(params.get("requestId")))
        if task is not None:
            task.cancel()
    elif method in PASSED_ON:
        house.upstreams.tell(session.ticket.principal, session.id, method, params)


def _handler(inbound: Inbound, era: str) -> Handler:
    name = inbound.message["method"]
    handler = ANSWERED[era].get(name)
    if handler is not None:
        return handler
    if name in BY_NAME:
        raise no_method(name, era)
    return UNKNOWN
