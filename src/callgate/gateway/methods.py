"""The table of methods: what may be said through the door, in which era, and what becomes of it.

The dispatcher answers from this table, and ``docs/methods.md`` is made of it (``reference.py``).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from callgate.gateway.calling import call, forward, read
from callgate.gateway.completion import complete
from callgate.gateway.inbound import Handler
from callgate.gateway.local import discover, list_, ping, set_level
from callgate.gateway.streams import listen
from callgate.gateway.subscribing import subscribe
from callgate.gateway.tasks import about
from callgate.gateway.tasks import list_ as tasks_list

Kind = Literal["request", "notification"]
Direction = Literal["to server", "to client"]


class Method(msgspec.Struct, frozen=True):
    """One method. ``routed`` says what decides which server it reaches (``callgate`` answers itself where it is empty),
    ``rewritten`` what changes on the way, ``cached`` how long an answer is kept. ``handler`` answers the requests of
    clients; what has none is taken or sent elsewhere (``where``).
    """

    name: str
    modern: bool
    legacy: bool
    kind: Kind = "request"
    direction: Direction = "to server"
    routed: str = ""
    rewritten: str = "nothing"
    cached: str = "no"
    handler: Handler | None = None
    where: str = ""


LIST = "compiled from the servers' lists; refreshed by `list_changed`, by `ttlMs`, else every 5 minutes"
NAMES = "names and URIs on aggregates, `_meta` of the hop"

TASK = "the task's id; the shape of the other era"
EACH_TASK = "callgate, which asks the server of each task"
LEVEL = "kept in the session; sent as `logLevel` to modern servers"
ASKED = "the request's id; legacy requests become entries of `inputRequests` and back"
QUESTION = "asked on the call's stream, or answered by the client's retry"
RUNNING = "ends the request that runs under this id"
PUSHED = "the session's stream, or `subscriptions/listen`"
ID = "the request's id"
OWN = "the session's own servers"
NOTE: Kind = "notification"
OUT: Direction = "to client"

TABLE: tuple[Method, ...] = (
    Method("initialize", False, True, where="callgate, which opens the session"),
    Method("server/discover", True, False, cached="compiled", handler=discover),
    Method("ping", False, True, handler=ping),
    Method("logging/setLevel", False, True, rewritten=LEVEL, handler=set_level),
    Method("tools/list", True, True, rewritten=NAMES, cached=LIST, handler=list_),
    Method("prompts/list", True, True, rewritten=NAMES, cached=LIST, handler=list_),
    Method("resources/list", True, True, rewritten=NAMES, cached=LIST, handler=list_),
    Method("resources/templates/list", True, True, rewritten=NAMES, cached=LIST, handler=list_),
    Method("tools/call", True, True, routed="`name`", rewritten=NAMES, handler=call),
    Method("prompts/get", True, True, routed="`name`", rewritten=NAMES, handler=read),
    Method("resources/read", True, True, routed="`uri`", rewritten=NAMES, handler=read),
    Method("completion/complete", True, True, routed="`ref`", rewritten=NAMES, handler=complete),
    Method("resources/subscribe", False, True, routed="`uri`", rewritten=NAMES, handler=subscribe),
    Method("resources/unsubscribe", False, True, routed="`uri`", rewritten=NAMES, handler=subscribe),
    Method("tasks/get", True, True, routed="`taskId`", rewritten=TASK, handler=about),
    Method("tasks/update", True, False, routed="`taskId`", rewritten=TASK, handler=about),
    Method("tasks/result", False, True, routed="`taskId`", rewritten=TASK, handler=about),
    Method("tasks/cancel", True, True, routed="`taskId`", rewritten=TASK, handler=about),
    Method("tasks/list", False, True, rewritten=TASK, handler=tasks_list, where=EACH_TASK),
    Method("subscriptions/listen", True, False, routed="its URIs", rewritten=NAMES, handler=listen),
    # What clients tell.
    Method("notifications/initialized", False, True, NOTE, where="kept in the session"),
    Method("notifications/cancelled", True, True, NOTE, routed="`requestId`", rewritten=ID, where=RUNNING),
    Method("notifications/progress", False, True, NOTE, routed="the session", where=OWN),
    Method("notifications/roots/list_changed", False, True, NOTE, routed="the session", where=OWN),
    # What servers ask. A modern client gets them inside an `input_required` result (docs/questions.md).
    Method("elicitation/create", True, True, direction=OUT, routed="the call", rewritten=ASKED, where=QUESTION),
    Method("sampling/createMessage", True, True, direction=OUT, routed="the call", rewritten=ASKED, where=QUESTION),
    Method("roots/list", True, True, direction=OUT, routed="the call", rewritten=ASKED, where=QUESTION),
    # What servers tell.
    Method("notifications/progress", True, True, NOTE, OUT, "the call", "the token", where="the call's stream"),
    Method("notifications/message", True, True, NOTE, OUT, "the call", where="the call's stream, or the session's"),
    Method("notifications/tools/list_changed", True, True, NOTE, OUT, "the doors that changed", where=PUSHED),
    Method("notifications/prompts/list_changed", True, True, NOTE, OUT, "the doors that changed", where=PUSHED),
    Method("notifications/resources/list_changed", True, True, NOTE, OUT, "the doors that changed", where=PUSHED),
    Method("notifications/resources/updated", True, True, NOTE, OUT, "who subscribed", "the URI", where=PUSHED),
    Method("notifications/subscriptions/acknowledged", True, False, NOTE, OUT, where="the new stream; callgate's own"),
    Method("notifications/tasks", True, False, NOTE, OUT, "who listens", "the task's id", where="its stream"),
    Method("notifications/tasks/status", False, True, NOTE, OUT, "the session", "the task's id", where=PUSHED),
    Method("notifications/elicitation/complete", False, True, NOTE, OUT, "the session", where=PUSHED),
)  # fmt: skip

BY_NAME = {each.name: each for each in TABLE}
#: What answers the requests of each era; a method that is not here is unknown there.
ANSWERED: dict[str, dict[str, Handler]] = {
    "modern": {each.name: each.handler for each in TABLE if each.modern and each.handler is not None},
    "legacy": {each.name: each.handler for each in TABLE if each.legacy and each.handler is not None},
}
#: What answers a method that the table does not know at all.
UNKNOWN = forward
