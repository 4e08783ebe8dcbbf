"""Legacy client, modern server: the questions in an ``input_required`` result are asked as requests, and the call is
made again with the answers, until the server is content (mcp-protocol, section 14.5).

Every leg is judged again, because policy may have changed while somebody thought; the record stays one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.gateway import wire
from callgate.gateway.rounds import INPUT_REQUIRED, checked
from callgate.types import Answer, Ask, Call, Conduct, Permitted, Question, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: How often one call may be made again (rule REENT-1). Each question has a deadline of its own (``asking.PATIENCE``).
ROUNDS = 8
#: A server that wants to be asked again without an answer is, after this pause (seconds), which doubles every time.
PAUSE = 0.05


class Asks(msgspec.Struct, frozen=True):
    """What a server wants to know: its questions by its own keys, and the state that goes back untouched."""

    questions: Mapping[str, Question]
    state: str | None


async def reenter(permitted: Permitted, answer: Answer, house: House, conduct: Conduct) -> Answer:
    """Ask the client and call the server again, as long as its answer is ``input_required``."""
    first = permitted.call
    config = house.settings.servers.get(first.tool.server)
    for leg in range(ROUNDS):
        if answer.result_type != INPUT_REQUIRED or answer.error is not None:
            return answer
        asks = read(answer, first, house.settings.limits.max_depth)
        responses = await _responses(asks, conduct.ask)
        if isinstance(responses, str):
            return refused(first, responses)
        if not asks.questions:
            await asyncio.sleep(PAUSE * 2**leg)
        if house.settings.servers.get(first.tool.server) != config:
            return refused(first, f"Server `{first.tool.server}` was changed while the client was asked. Call again.")
        call = _again(first, responses, asks.state)
        answer = await house.upstreams.send(house.judged_anew(call), conduct)
    if answer.result_type != INPUT_REQUIRED:
        return answer
    return refused(first, f"The server asked more than {ROUNDS} times.")


def read(answer: Answer, call: Call, depth: int) -> Asks:
    """The questions in an ``input_required`` result; raises ``UpstreamError`` where it breaks the rules."""
    members = checked(answer, call, depth)
    requests: dict[str, Any] = wire.decode(members.get("inputRequests", b"{}"))
    state = wire.decode(members["requestState"]) if "requestState" in members else None
    return Asks({key: _question(each) for key, each in requests.items()}, state)


def _question(request: Mapping[str, Any]) -> Question:
    """A member of ``inputRequests`` as a request of the legacy era, whose clients insist on an ``elicitationId``."""
    params = request.get("params", {})
    if params.get("mode") == "url" and "elicitationId" not in params:
        params = {**params, "elicitationId": secrets.token_urlsafe(16)}
    return Question(request["method"], params)


async def _responses(asks: Asks, ask: Ask | None) -> dict[str, Any] | str:
    """The client's answers, all asked at once; or why there are none."""
    if not asks.questions:
        return {}
    if ask is None:
        # Rule REENT-4: no event stream to ask on, or nothing declared that could be asked.
        return (
            "The server needs an answer of the client, which cannot be asked here: it must declare the capability "
            "(elicitation, sampling or roots) at `initialize` and accept text/event-stream."
        )
    asking = [asyncio.ensure_future(ask(question)) for question in asks.questions.values()]
    try:
        for done in asyncio.as_completed(asking):
            answer = await done
            if answer.error is not None:
                return f"The client did not answer the server: {answer.error.message}"
        return {key: msgspec.Raw(each.result().result) for key, each in zip(asks.questions, asking, strict=True)}
    finally:
        await _withdraw(asking)


async def _withdraw(asking: Sequence[asyncio.Future[Answer]]) -> None:
    """One refusal is enough: the other questions are withdrawn."""
    unanswered = [each for each in asking if not each.done()]
    for each in unanswered:
        each.cancel()
    if unanswered:
        await asyncio.wait(unanswered)


def _again(call: Call, responses: Mapping[str, Any], state: str | None) -> Call:
    """The same call with the answers of this round only, and the server's state as it gave it (rule REENT-3)."""
    params = {key: value for key, value in call.params.items() if key not in ("inputResponses", "requestState")}
    if responses:
        params["inputResponses"] = responses
    if state is not None:
        params["requestState"] = state
    return msgspec.structs.replace(call, params=params)


def refused(call: Call, why: str) -> Answer:
    """A failure in the words of the method: tools say what went wrong, prompts and resources are errors."""
    if call.method != "tools/call":
        return Answer(error=RpcError(wire.INTERNAL_ERROR, why))
    said = {"content": [{"type": "text", "text": why}], "isError": True}
    return Answer(result=wire.encode(said), is_error=True, result_type="complete")
