"""What the guard does with one call: before it leaves, and with what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from callgate.config import MaxResult
from callgate.errors import Denied, ProtocolError
from callgate.guard.findings import Finding
from callgate.guard.kept import KeptResult, Results
from callgate.guard.plans import Plan, Plans
from callgate.guard.results import Members, encode, trimmed
from callgate.guard.schemas import Schema
from callgate.types import METHOD, PROMPT, RESOURCE, Answer, Call, RpcError, Tool

INVALID_PARAMS, WITHHELD = -32602, -31422
#: From this version on, arguments that do not fit are a result that the model reads (SEP-1303).
READS_MISTAKES = "2025-11-25"
#: Methods whose results are bounded.
GIVES = frozenset({"tools/call", "prompts/get", "resources/read", "tasks/result", "tasks/get"})
#: What may still be said about a tool that is held back.
ENDS = frozenset({"tasks/cancel", "resources/unsubscribe"})

_members = msgspec.json.Decoder(Members).decode
_any = msgspec.json.Decoder().decode


class Refused(msgspec.Struct, frozen=True):
    """A call that does not leave: its answer, and why."""

    answer: Answer
    finding: Finding


def quarantined(tool: Tool) -> Denied:
    """What is said of an entry that is held back."""
    return Denied(
        f"`{tool.native[:200]}` is quarantined ({tool.withheld}): it was not sent to its server.",
        hint=f"An operator decides with `callgate catalog diff {tool.native[:200]}` and `callgate catalog approve`.",
        data={"kind": "quarantined", "why": tool.withheld},
    )


def fits(call: Call, plans: Plans) -> Refused | None:
    """Whether a call may leave. Raises ``Denied`` for a tool that is held back; what does not fit the input schema is
    an answer, so that the model can mend it (an error up to 2025-06-18).
    """
    tool = call.tool
    if tool.withheld and call.method not in ENDS:
        raise quarantined(tool)
    if call.method == "prompts/get":
        mistakes = _unnamed(call, plans)
    elif call.method == "tools/call" and not tool.name.startswith((PROMPT, RESOURCE, METHOD)):
        schema = plans.of(tool).arguments
        mistakes = [] if schema is None else schema.mistakes(call.arguments, call.size)
    else:
        return None
    if not mistakes:
        return None
    says = f"The arguments do not fit what {tool.name[:128]} takes: {'; '.join(mistakes)}."
    if call.method != "tools/call" or call.front.version < READS_MISTAKES:
        raise ProtocolError(says, INVALID_PARAMS, hint="Nothing was sent to the server.")
    hint = "Nothing was done. Call again with arguments that fit the input schema."
    return Refused(failed(f"{says} {hint}"), Finding("arguments", says))


def _unnamed(call: Call, plans: Plans) -> list[str]:
    """The arguments that a prompt needs and was not given."""
    if plans.of(call.tool).rules.arguments == "off":
        return []
    declared = msgspec.json.decode(call.tool.definition, type=dict[str, Any]).get("arguments")
    needed = [
        each.get("name")
        for each in (declared if isinstance(declared, list) else ())
        if isinstance(each, dict) and each.get("required") is True and isinstance(each.get("name"), str)
    ]
    return [f"/{name}: it is required" for name in needed if name not in call.arguments]


def failed(text: str) -> Answer:
    """A tool's result that says that something went wrong."""
    said = {"content": [{"type": "text", "text": text}], "isError": True, "resultType": "complete"}
    return Answer(result=encode(said), is_error=True, result_type="complete")


class Outcome(msgspec.Struct, frozen=True):
    """An answer that may be given, what was found, and whether it holds a link of callgate's own."""

    answer: Answer
    findings: tuple[Finding, ...] = ()
    linked: bool = False


def fitting(answer: Answer, call: Call, plans: Plans) -> Outcome:
    """A server's answer, if its structured content is what the tool's output schema says; else what is said instead."""
    plan, inner = _looked_at(answer, call, plans)
    if plan is None or plan.results is None:
        return Outcome(answer)
    result = answer if inner is None else inner[1]
    mistakes = [] if result.is_error else _mistakes(result, plan.results, call)
    if not mistakes:
        return Outcome(answer)
    says = f"The result does not fit the output schema: {'; '.join(mistakes)}."
    found = (Finding("result", says),)
    if plan.rules.results != "block":
        return Outcome(answer, found)
    return Outcome(_put(withheld(says, call), answer, inner), found)


async def bounded(answer: Answer, call: Call, plans: Plans, kept: Results) -> Outcome:
    """An answer within the bounds of its tool. It comes last: what is kept is what the caller could have been given."""
    plan, inner = _looked_at(answer, call, plans)
    if plan is None or not plan.rules.bounded:
        return Outcome(answer)
    work = _Work(call, plan, kept)
    result = answer if inner is None else inner[1]
    made = await work.done(result)
    if made is result:
        return Outcome(answer, tuple(work.findings))
    return Outcome(_put(made, answer, inner), tuple(work.findings), work.linked)


Inner = tuple[Members, Answer]


def _looked_at(answer: Answer, call: Call, plans: Plans) -> tuple[Plan | None, Inner | None]:
    """The plan for an answer that is a result, and the result in it where it is a task that is over."""
    if answer.error is not None or call.method not in GIVES:
        return None, None
    inner = _inner(answer, call)
    if inner is None and (answer.result_type not in (None, "complete") or call.method == "tasks/get"):
        return None, None
    return plans.of(call.tool), inner


def _put(made: Answer, answer: Answer, inner: Inner | None) -> Answer:
    """A result in the place of another, or in the task around it."""
    if inner is None:
        return made
    if made.error is not None:
        made = failed(made.error.message)
    return msgspec.structs.replace(answer, result=encode({**inner[0], "result": msgspec.Raw(made.result)}))


def _mistakes(answer: Answer, schema: Schema, call: Call) -> list[str]:
    if call.method in ("prompts/get", "resources/read"):
        return []
    structured = _members(answer.result).get("structuredContent")
    if structured is None:
        return ["there is no structured content"]
    return schema.mistakes(_any(structured), len(bytes(structured)))


def _blocks(members: Members, name: str) -> list[Any]:
    """A list of a result; a server may have sent something else, or nothing."""
    found = _any(members[name]) if name in members else None
    return found if isinstance(found, list) else []


def withheld(says: str, call: Call) -> Answer:
    """What is given instead of a result."""
    if call.method in ("prompts/get", "resources/read"):
        return Answer(error=RpcError(WITHHELD, says, {"kind": "withheld"}))
    return failed(f"{says} It was withheld.")


def _inner(answer: Answer, call: Call) -> tuple[Members, Answer] | None:
    """The result inside a task that is over (modern), and the members around it."""
    if b'"taskId"' not in answer.result or call.method not in ("tasks/get", "tools/call"):
        return None
    members = _members(answer.result)
    if "taskId" not in members or "result" not in members:
        return None
    inner = bytes(members["result"])
    is_error = bytes(_members(inner).get("isError", msgspec.Raw(b"false"))) == b"true"
    return members, Answer(result=inner, era=answer.era, is_error=is_error, result_type="complete")


class _Work:
    """One result."""

    def __init__(self, call: Call, plan: Plan, kept: Results) -> None:
        self.call = call
        self.plan = plan
        self.kept = kept
        self.findings: list[Finding] = []
        self.linked = False

    async def done(self, answer: Answer) -> Answer:
        bounds, images = self.plan.rules.max_result, self.plan.rules.images
        clean = trimmed(answer.result, MaxResult(mime=bounds.mime), images=images)
        self.findings += clean.findings
        cut = trimmed(clean.result, msgspec.structs.replace(bounds, mime=None))
        self.findings += cut.findings
        if cut.whole:
            return answer if clean.result is answer.result else msgspec.structs.replace(answer, result=clean.result)
        if bounds.over == "block":
            return withheld(cut.findings[0].says, self.call)
        result = cut.result
        if bounds.over == "spill":
            result = await self._linked(clean.result, cut.result)
        return self._honest(answer, result)

    def _honest(self, answer: Answer, result: bytes) -> Answer:
        """A tool with an output schema whose structured content is cut off has failed: clients insist on it."""
        members = _members(result)
        wrong = self.plan.structured and "structuredContent" not in members and not answer.is_error
        if wrong and self.call.method not in ("prompts/get", "resources/read"):
            result = encode({**members, "isError": True})
            return msgspec.structs.replace(answer, result=result, is_error=True)
        return msgspec.structs.replace(answer, result=result)

    async def _linked(self, whole: bytes, cut: bytes) -> bytes:
        """The cut result with a link to the whole one, which is kept for its caller."""
        call = self.call
        keep = KeptResult(
            call.tool.server, call.tool.name, dict(call.arguments), msgspec.Raw(whole), self.kept.expiry()
        )
        try:
            uri = await asyncio.to_thread(self.kept.keep, keep, call.principal.key)
        except OSError as why:
            self.findings.append(Finding("size", f"The whole result could not be kept ({why.strerror})."))
            return cut
        self.linked = True
        about = f"The whole result ({len(whole)} bytes of JSON). Read it with resources/read within an hour."
        link: dict[str, Any] = {"type": "resource_link", "uri": uri, "name": "whole result", "description": about}
        link |= {"mimeType": "application/json", "size": len(whole)}
        members = _members(cut)
        members.pop("structuredContent", msgspec.Raw(b""))
        if call.method == "prompts/get":
            said = [*_blocks(members, "messages"), {"role": "user", "content": link}]
            return encode({**members, "messages": said})
        if call.method == "resources/read":
            note = {"uri": uri, "mimeType": "text/plain", "text": f"{about} Its URI: {uri}"}
            return encode({**members, "contents": [*_blocks(members, "contents"), note]})
        # Links of the server's own would have to be rewritten beside ours: they are in the whole result.
        texts = [each for each in _blocks(members, "content") if isinstance(each, dict) and each.get("type") == "text"]
        return encode({**members, "content": [*texts, link]})
