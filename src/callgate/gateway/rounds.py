"""What a server may ask the client through the result of a call (`input_required`), and how that result travels on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.errors import ProtocolError, UpstreamError
from callgate.gateway import wire
from callgate.gateway.seal import BROUGHT, LARGEST, Round, refused
from callgate.types import JSON, Answer, Call, Conduct, Front, Question, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: The type of a result that is a question.
INPUT_REQUIRED = "input_required"
#: The only methods whose results may be questions (rule MRTR-1).
ASKING = frozenset({"tools/call", "prompts/get", "resources/read"})
#: What a question asks → the capability that a client declares for it.
CAPABILITY = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
#: A legacy server's error: pages must be opened by the user before the call can succeed.
URL_REQUIRED = -32042

#: The member of a question's `_meta` that names who asks, where the endpoint does not (rule ELI-5).
ASKER = "callgate/server"

#: Questions that one result may hold.
MOST = 64

_HINTS = ("ttlMs", "cacheScope")  # a question is never kept (MRTR-10)
_OF_LEGACY = frozenset({"task", "elicitationId"})
_OF_LEGACY_META = frozenset({"progressToken", "io.modelcontextprotocol/related-task"})
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def returned(call: Call, house: House) -> tuple[Call, Round | None]:
    """A call that may bring answers, as it goes on to the server, and what its `requestState` carried."""
    params = call.params
    if call.method not in ASKING or params.keys().isdisjoint(BROUGHT):
        return call, None
    sent = {name: value for name, value in params.items() if name not in BROUGHT}
    round, era = None, house.upstreams.era(call)
    if call.front.era == "modern":
        if "requestState" in params:
            round = house.seal.open(params["requestState"], call)
        sent |= _answers(params, round, era)
    return msgspec.structs.replace(call, params=sent), round


def _answers(params: Mapping[str, Any], round: Round | None, era: str | None) -> JSON:
    """The client's answers for the server: a modern one gets them with its own state, a legacy one never sees any."""
    answers = {"inputResponses": params["inputResponses"]} if "inputResponses" in params else {}
    if round is None:
        return answers if era == "modern" else {}
    if round.kind == "parked":
        return answers  # for the parking lot
    if round.kind == "url":
        _check_opened(params.get("inputResponses"))
        return {}
    if era == "legacy":
        raise refused("The server does not take answers any more; the call was not run again.")
    return answers | ({} if round.inner is None else {"requestState": round.inner})


def _check_opened(responses: object) -> None:
    if isinstance(responses, dict) and any(
        not isinstance(each, dict) or each.get("action") != "accept" for each in responses.values()
    ):
        raise refused("The server works only after its page was opened, and the user declined; nothing was run.")


def relayed(answer: Answer, call: Call, house: House) -> Answer:
    """A server's answer that is not plain, as the client may see it (rules EXT-1, MRTR-1 to MRTR-4)."""
    front = call.front
    if answer.error is not None:
        asking = _pages(answer.error, call) if answer.era == "legacy" and front.era == "modern" else None
        return answer if asking is None else input_required(asking, house.seal.seal(call, "url", _ttl(house)))
    if answer.result_type == INPUT_REQUIRED and answer.era == front.era == "modern":
        return _wrapped(answer, call, house)
    if answer.result_type is None or answer.result_type == "complete":
        return answer
    if answer.era == front.era == "legacy":
        return answer
    raise _forbidden(call, f"with a result of type {str(answer.result_type)[:40]!r}, which this client cannot read")


def _wrapped(answer: Answer, call: Call, house: House) -> Answer:
    """The question of a modern server, with its state sealed; everything else in it stays as it was sent."""
    members = checked(answer, call, house.settings.limits.max_depth)
    inner = msgspec.json.decode(members["requestState"], type=str) if "requestState" in members else None
    for name in _HINTS:
        members.pop(name, None)
    if "inputRequests" in members and not call.front.door.startswith("server:"):
        members["inputRequests"] = msgspec.Raw(_signed(members["inputRequests"], call.tool.server))
    state = house.seal.seal(call, "pass", _ttl(house), inner)
    members["requestState"] = msgspec.Raw(wire.encode(state))
    return msgspec.structs.replace(answer, result=wire.encode(members))


def _signed(requests: msgspec.Raw, server: str) -> bytes:
    asked = wire.decode(requests)
    for each in asked.values():
        each["params"] = named(Question(each["method"], each.get("params", {})), server).params
    return wire.encode(asked)


def named(question: Question, server: str) -> Question:
    """The question with the name of the server that asks, for clients of an endpoint that does not name it."""
    meta = question.params.get("_meta")
    signed = {**(meta if isinstance(meta, dict) else {}), ASKER: server}
    return Question(question.method, {**question.params, "_meta": signed})


def naming(conduct: Conduct, call: Call) -> Conduct:
    """The client's end of a call, whose questions name their server."""
    ask, server = conduct.ask, call.tool.server
    if ask is None or call.front.door.startswith("server:"):
        return conduct
    return Conduct(conduct.emit, lambda question: ask(named(question, server)))


def checked(answer: Answer, call: Call, depth: int) -> dict[str, msgspec.Raw]:
    """The members of an `input_required` result that keeps the rules; raises ``UpstreamError`` for any other."""
    if call.method not in ASKING:
        raise _forbidden(call, f"by a question, which `{call.method[:80]}` cannot have")
    try:
        members = _members(answer.result)
        asked = wire.read(bytes(members.get("inputRequests", b"{}")), depth)
        state = wire.decode(members["requestState"]) if "requestState" in members else ""
    except (ProtocolError, msgspec.MsgspecError) as why:
        raise _forbidden(call, f"by a question that cannot be read ({why})") from None
    if members.keys().isdisjoint({"inputRequests", "requestState"}):
        raise _forbidden(call, "by a question that asks nothing")
    if not isinstance(asked, dict) or len(asked) > MOST or not isinstance(state, str) or len(state) > LARGEST:
        raise _forbidden(call, "by a question of the wrong shape")
    for question in asked.values():
        _check_question(question, call)
    return members


def _check_question(question: object, call: Call) -> None:
    params = question.get("params", {}) if isinstance(question, dict) else None
    if not isinstance(question, dict) or question.get("method") not in CAPABILITY or not isinstance(params, dict):
        raise _forbidden(call, "by a question that the protocol does not know")
    needed = needs(Question(question["method"], params))
    if not declares(call.front.capabilities, needed):
        raise _forbidden(call, f"by asking for {_spelled(needed)}, which this client did not declare")


def _forbidden(call: Call, how: str) -> UpstreamError:
    return UpstreamError(f"Server `{call.tool.server}` broke the protocol: it answered {how}.")


def needs(question: Question) -> JSON:
    """The capability that a client must have declared to be asked this, as it would declare it."""
    name = CAPABILITY[question.method]
    if name == "elicitation":
        mode = question.params.get("mode", "form")
        return {name: {mode if isinstance(mode, str) else "?": {}}}
    tools = name == "sampling" and not question.params.keys().isdisjoint({"tools", "toolChoice"})
    return {name: {"tools": {}} if tools else {}}


def declares(capabilities: Mapping[str, Any], needed: Mapping[str, Any]) -> bool:
    """Whether a client that declared ``capabilities`` has all that is needed.

    >>> declares({"elicitation": {}}, {"elicitation": {"form": {}}})
    True
    >>> declares({"elicitation": {}}, {"elicitation": {"url": {}}})
    False
    """
    for name, wanted in needed.items():
        given = capabilities.get(name)
        if not isinstance(given, dict):
            return False
        if isinstance(wanted, dict) and not (wanted or _least(name)).keys() <= _offered(name, given).keys():
            return False
    return True


def _least(name: str) -> JSON:
    """What a capability means that says nothing more: `elicitation` is forms."""
    return {"form": {}} if name == "elicitation" else {}


def _offered(name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    offered = {key: value for key, value in given.items() if isinstance(value, dict)}
    return offered if name != "elicitation" or not offered.keys().isdisjoint({"form", "url"}) else _least(name)


def _spelled(needed: JSON) -> str:
    return ", ".join(".".join((name, *value)) for name, value in needed.items())[:80]


def askable(front: Front) -> bool:
    """Whether the client declared anything that a server could ask."""
    return not front.capabilities.keys().isdisjoint(CAPABILITY.values())


def _pages(error: RpcError, call: Call) -> JSON | None:
    """The questions in a legacy server's demand that pages be opened; ``None`` when the client opens none."""
    listed = error.data.get("elicitations") if isinstance(error.data, dict) else None
    if error.code != URL_REQUIRED or not isinstance(listed, list) or not listed:
        return None
    questions = [Question("elicitation/create", each) for each in listed if isinstance(each, dict) and "url" in each]
    if len(questions) != len(listed) or call.method not in ASKING:
        return None
    if not all(declares(call.front.capabilities, needs(each)) for each in questions):
        return None
    return {f"r{number}": modern_form(each, call) for number, each in enumerate(questions, 1)}


def modern_form(question: Question, call: Call) -> JSON:
    """A legacy server's request as a member of `inputRequests`, without what exists only in its era."""
    if not call.front.door.startswith("server:"):
        question = named(question, call.tool.server)
    params = {name: value for name, value in question.params.items() if name not in _OF_LEGACY}
    meta = params.pop("_meta", None)
    if isinstance(meta, dict) and (kept := {key: meta[key] for key in meta.keys() - _OF_LEGACY_META}):
        params["_meta"] = kept
    if not params and question.method == "roots/list":
        return {"method": question.method}
    return {"method": question.method, "params": params}


def input_required(requests: JSON, state: str) -> Answer:
    result = wire.encode({"resultType": INPUT_REQUIRED, "inputRequests": requests, "requestState": state})
    return Answer(result=result, era="legacy", result_type=INPUT_REQUIRED)


def _ttl(house: House) -> float:
    return house.settings.limits.parked_ttl
