"""`callgate call SERVER/TOOL`: one governed call, as yourself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from callgate.cli.mcp import PROGRESS_TOKEN, Said, ask, header_value
from callgate.cli.options import HERE, Output, Where
from callgate.cli.output import emit_value, json_line, on_terminal, plain, say
from callgate.cli.remote import Remote
from callgate.errors import (
    AwaitingApproval,
    CallgateError,
    Denied,
    InsufficientScope,
    NotFound,
    Overloaded,
    Unauthenticated,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UsageError,
    nearest,
)

REFUSALS: dict[int, type[CallgateError]] = {
    kind.rpc_code: kind
    for kind in (
        Denied, AwaitingApproval, InsufficientScope, Unauthenticated, Overloaded, UpstreamError, UpstreamTimeout,
        UpstreamUnavailable,
    )
}  # fmt: skip
INVALID_PARAMS = -32602
NEEDS_MORE = -32021  # capabilities that this client does not have
#: Pages of a server's tools that are looked through for the definition of one.
PAGES = 20


def call(
    tool: str,
    /,
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True)],
    json: str | None = None,
    timeout: float = 300.0,
    output: Output = None,
    where: Where = HERE,
) -> int:
    """Call a tool through the gateway, under its policy and with a record.

    Parameters
    ----------
    tool
        The tool as `server/tool`, with the server's own name for it.
    arguments
        `key=value` each; the value is JSON where it parses as JSON, else text (always text where the tool wants
        text). `-` reads one JSON object from stdin.
    json
        All arguments as one JSON object.
    timeout
        Seconds to wait for the answer.
    """
    server, slash, name = tool.partition("/")
    if not slash or not server or not name:
        raise UsageError(f"`{tool}` is not of the form `server/tool`.", hint="`callgate ls SERVER` lists the tools.")
    whole = _whole(arguments, json)
    pairs = [] if whole is not None else list(_pairs(arguments))
    return asyncio.run(_call((server, name), whole, pairs, (timeout, output), where))


async def _call(
    tool: tuple[str, str],
    whole: dict[str, Any] | None,
    pairs: list[tuple[str, str]],
    how: tuple[float, Any],
    where: Where,
) -> int:
    server, name = tool
    timeout, output = how
    async with Remote(where) as gateway:
        definition = await _definition(gateway, server, name)
        given = whole if whole is not None else _typed(pairs, definition)
        headers = _mirrored(definition, given)
        params = {"name": name, "arguments": given}
        said = await ask(gateway, _endpoint(server), "tools/call", params, note=_note, headers=headers, timeout=timeout)
    if said.call_id:
        say(f"call {said.call_id}")
    if said.error is not None:
        return _failed(said)
    assert said.result is not None
    _check_consent(said.result)
    _show(said.result, output)
    return 1 if said.result.get("isError") is True else 0


def _endpoint(server: str) -> str:
    from urllib.parse import quote

    return f"/servers/{quote(server, safe='')}/mcp"


def _whole(arguments: Sequence[str], text: str | None) -> dict[str, Any] | None:
    """The arguments as one object, from ``--json`` or stdin."""
    if "-" in arguments:
        if len(arguments) > 1 or text is not None:
            raise UsageError("`-` reads all arguments from stdin; nothing may stand beside it.")
        text = sys.stdin.read()
    if text is None:
        return None
    if arguments and arguments != ("-",):
        raise UsageError("Give the arguments as `--json` or as `key=value`, not both.")
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as why:
        raise UsageError(f"The arguments are not a JSON object: {why}.") from None


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for text in arguments:
        key, sign, value = text.partition("=")
        if text.startswith("--"):
            hint = "Arguments are written `key=value`; `callgate call --help` lists the options."
            raise UsageError(f"There is no option `{text}`.", hint=hint)
        if not sign or not key:
            raise UsageError(f"`{text}` is not of the form `key=value`.", hint="Or give all of them with --json '{…}'.")
        if key in seen:
            raise UsageError(f"The argument `{key}` is given twice.")
        seen.add(key)
        yield key, value


def typed(text: str) -> Any:
    """A value as JSON where it is JSON, else as text.

    >>> typed("3"), typed("main"), typed("[1, 2]")
    (3, 'main', [1, 2])
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return text


def _typed(pairs: list[tuple[str, str]], definition: Mapping[str, Any]) -> dict[str, Any]:
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    wants = properties if isinstance(properties, dict) else {}
    found = {}
    for key, text in pairs:
        kind = wants.get(key, {}).get("type") if isinstance(wants.get(key), dict) else None
        value = typed(text)
        found[key] = text if kind == "string" and not isinstance(value, str) else value
    return found


async def _definition(gateway: Remote, server: str, name: str) -> dict[str, Any]:
    """What the server says of the tool; empty when it is not listed (the call itself tells why)."""
    cursor: dict[str, Any] = {}
    for _ in range(PAGES):
        try:
            said = await ask(gateway, _endpoint(server), "tools/list", cursor)
        except NotFound:
            raise await _no_server(gateway, server) from None
        result = said.result or {}
        for tool in result.get("tools", ()):
            if tool.get("name") == name:
                return dict(tool)
        if not result.get("nextCursor"):
            break
        cursor = {"cursor": result["nextCursor"]}
    return {}


async def _no_server(gateway: Remote, server: str) -> NotFound:
    said = await ask(gateway, "/mcp", "tools/list", {})
    tools = (said.result or {}).get("tools", ())
    known = sorted({str(tool.get("name", "")).partition("__")[0] for tool in tools})
    close = nearest(server, known)
    hint = f"Did you mean `{close}`?" if close else "`callgate ls` lists the servers."
    return NotFound(f"There is no server `{server}`.", hint=hint)


def _mirrored(definition: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The ``Mcp-Param-*`` headers (rule HDR-7)."""
    from callgate.catalog import header_arguments

    headers = {}
    for suffix, path in header_arguments(definition.get("inputSchema")):
        value: Any = arguments
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, (str, int, float)):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            headers[f"mcp-param-{suffix.lower()}"] = header_value(text)
    return headers


def _note(message: Mapping[str, Any]) -> None:
    params = message.get("params", {})
    if message.get("method") == "notifications/progress" and params.get("progressToken") == PROGRESS_TOKEN:
        of = f"/{params['total']:g}" if isinstance(params.get("total"), (int, float)) else ""
        text = f" {params['message']}" if params.get("message") else ""
        say(f"progress {params.get('progress', 0):g}{of}{text}")
    elif message.get("method") == "notifications/message":
        data = params.get("data")
        say(f"{params.get('level', 'info')}: {data if isinstance(data, str) else json_line(data)}")


def _failed(said: Said) -> int:
    """Raise what a refusal stands for; an error of the server itself is the tool's failure."""
    assert said.error is not None
    code, message = said.error.get("code"), str(said.error.get("message", ""))
    data = said.error.get("data")
    ours = isinstance(data, dict) and "callId" in data
    if ours and code == INVALID_PARAMS:
        what, _, near = message.partition(" Did you mean ")
        hint = f"Did you mean `{near.rstrip('?')}`?" if near else "`callgate ls SERVER` lists the tools."
        raise NotFound(what, hint=hint)
    kind = REFUSALS.get(code) if isinstance(code, int) else None
    if kind is not None:
        why = f"`callgate why {said.call_id}` names the rule." if issubclass(kind, Denied) and said.call_id else ""
        if kind is InsufficientScope and isinstance(data, dict):
            why = f"Signed in? `callgate login --scope '{plain(data.get('scope'))}'` gets them."
        raise kind(message, hint=why)
    say(f"the server refused the call: {message} ({code})")
    if code == NEEDS_MORE:
        say("`callgate call` answers no questions and follows no tasks; call this tool from an AI client.")
    return 1


def _check_consent(result: Mapping[str, Any]) -> None:
    """Raise Unauthenticated where the server wants its user to agree first; the gateway says where."""
    meta = result.get("_meta")
    consent = meta.get("callgate/consent") if isinstance(meta, dict) and result.get("isError") is True else None
    if isinstance(consent, dict):
        hint = f"Open {consent.get('url')} in a browser, agree there, and call again."
        raise Unauthenticated(f"Server `{consent.get('server')}` wants you to sign in to it first.", hint=hint)


def _show(result: Mapping[str, Any], output: Output) -> None:
    if output not in (None, "table"):
        emit_value(result, output)
        return
    if result.get("isError") is True:
        say("the tool reported an error:")
    shown = [_text(block) for block in result.get("content", ()) if isinstance(block, dict)]
    if not shown and result.get("structuredContent") is not None:
        shown = [json_line(result["structuredContent"])]
    for text in shown:
        print(plain(text, lines=True) if on_terminal() else text)


def _text(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", ""))
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, dict):
        return str(resource.get("text", f"[resource {resource.get('uri')}]"))
    if kind == "resource_link":
        return str(block.get("uri", ""))
    size = len(str(block.get("data", ""))) * 3 // 4
    return f"[{kind} {block.get('mimeType', '')}, {size} bytes; `-o json` has it]"
