"""What a server's answer becomes on its way to the client: URIs as the door writes them, content that the client's
version knows.

Nothing is decoded that need not be: a search through the bytes says whether there is anything to do. Then only the
parts on the way to a URI are read; everything else leaves as the server wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from callgate.catalog import expose, exposed_meta
from callgate.types import Answer, RpcError

if TYPE_CHECKING:
    from callgate.gateway.pipeline import Asked

Members = dict[str, msgspec.Raw]
Change = Callable[[Members], Members]

_object = msgspec.json.Decoder(Members).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
#: A letter written as an escape. No encoder does that; it would hide the name of a member from a search.
_HIDING = re.compile(rb"\\u00[4-7]")
#: Structured content that is no object, which no client up to 2025-11-25 can read.
_UNSTRUCTURED = re.compile(rb'"structuredContent"\s*:\s*[^{\s]')


def shown(answer: Answer, asked: Asked) -> Answer:
    """A server's answer as the caller's door and protocol version write it."""
    front, result = asked.front, answer.result
    if asked.tool is None:
        return answer
    if answer.error is not None:
        return answer if front.door.startswith("server:") else _shown_error(answer, asked.tool.server)
    # Both look closely; nearly every result can be seen from afar to be nothing for them. (``find``, because ``in``
    # costs ten times as much: it asks first whether it was given a number.)
    escaped = result.find(b"\\u") >= 0
    if front.era == "legacy" and (escaped or result.find(b'"structuredContent"') >= 0 or front.version < "2025-06-18"):
        result = for_version(result, front.version)
    if (escaped or result.find(b'ri"') >= 0) and not asked.linked and not front.door.startswith("server:"):
        result = exposed(result, asked.tool.server)
    return answer if result is answer.result else msgspec.structs.replace(answer, result=result)


def exposed(result: bytes, server: str) -> bytes:
    """A result with the URIs that lead to the server's resources as aggregates write them: in ``contents``, in content
    blocks (``resource_link``, ``resource``), in prompts' messages, in ``_meta.ui``, and in the result of a task.
    """
    if b'"uri"' not in result and b'esourceUri"' not in result and not _hides(result):
        return result

    def change(members: Members) -> Members:
        if "result" in members:
            members["result"] = _in(members["result"], lambda inner: _shown_result(inner, server))
        return _shown_result(members, server)

    return bytes(_in(msgspec.Raw(result), change))


def for_version(result: bytes, version: str) -> bytes:
    """A result that a client of this legacy version can read.

    Structured content is an object there: another value is put into one, as its member ``result``. A client that is
    older than a kind of content reads text instead: ``resource_link`` before 2025-06-18, ``audio`` before 2025-03-26.
    """
    unstructured = b'"structuredContent"' in result and _UNSTRUCTURED.search(result) is not None
    unknown = _unknown(version, result) if version < "2025-06-18" else frozenset[str]()
    if not unstructured and not unknown:
        return result

    def change(members: Members) -> Members:
        said = members.get("structuredContent")
        if said is not None and bytes(said).lstrip()[:1] != b"{":
            members["structuredContent"] = _raw({"result": said})
        if "content" in members:
            members["content"] = _each(members["content"], lambda block: _older_block(block, unknown))
        if "messages" in members:
            members["messages"] = _each(members["messages"], lambda message: _older_message(message, unknown))
        return members

    return bytes(_in(msgspec.Raw(result), change))


def _unknown(version: str, result: bytes) -> frozenset[str]:
    """The kinds of content that a client of this version does not know and that the result may hold."""
    kinds = {"resource_link": "2025-06-18", "audio": "2025-03-26"}
    return frozenset(kind for kind, since in kinds.items() if version < since and f'"{kind}"'.encode() in result)


def _hides(result: bytes) -> bool:
    return b"\\u00" in result and _HIDING.search(result) is not None


def _shown_error(answer: Answer, server: str) -> Answer:
    error = answer.error
    if error is None or not isinstance(error.data, dict) or not isinstance(error.data.get("uri"), str):
        return answer
    data = {**error.data, "uri": expose(server, error.data["uri"])}
    return msgspec.structs.replace(answer, error=RpcError(error.code, error.message, data))


def _shown_result(members: Members, server: str) -> Members:
    if "_meta" in members:
        members["_meta"] = _shown_meta(members["_meta"], server)
    for name in ("contents", "content"):
        if name in members:
            members[name] = _each(members[name], lambda block: _shown_block(block, server))
    if "messages" in members:
        members["messages"] = _each(members["messages"], lambda message: _shown_message(message, server))
    return members


def _shown_message(message: Members, server: str) -> Members:
    if "content" in message:
        message["content"] = _each(message["content"], lambda block: _shown_block(block, server))
    return message


def _shown_block(block: Members, server: str) -> Members:
    """A content block, or an element of ``contents``: its own URI, and that of the resource inside."""
    if "resource" in block:
        block["resource"] = _in(block["resource"], lambda resource: _shown_uri(resource, server))
    return _shown_uri(block, server)


def _shown_uri(block: Members, server: str) -> Members:
    if "uri" in block:
        uri = _any(block["uri"])
        block["uri"] = _raw(expose(server, uri)) if isinstance(uri, str) else block["uri"]
    return block


def _shown_meta(meta: msgspec.Raw, server: str) -> msgspec.Raw:
    if b'esourceUri"' not in bytes(meta) and not _hides(bytes(meta)):
        return meta
    members = _any(meta)
    return _raw(exposed_meta(server, members)) if isinstance(members, dict) else meta


def _older_message(message: Members, unknown: frozenset[str]) -> Members:
    if "content" in message:
        message["content"] = _each(message["content"], lambda block: _older_block(block, unknown))
    return message


def _older_block(block: Members, unknown: frozenset[str]) -> Members:
    kind = _any(block["type"]) if "type" in block else None
    if kind not in unknown:
        return block
    if kind == "audio":
        mime = _text(block, "mimeType") or "of an unknown type"
        said = f"[audio, {mime}: this version of the protocol cannot carry it]"
    else:
        name, about = _text(block, "title") or _text(block, "name"), _text(block, "description")
        said = "\n".join(
            part for part in (f"{name}: {_text(block, 'uri')}" if name else _text(block, "uri"), about) if part
        )
    kept: Members = {name: block[name] for name in ("annotations", "_meta") if name in block}
    return {"type": _raw("text"), "text": _raw(said), **kept}


def _text(block: Members, name: str) -> str:
    value = _any(block[name]) if name in block else ""
    return value if isinstance(value, str) else ""


def _each(value: msgspec.Raw, change: Change) -> msgspec.Raw:
    """Every object of an array, or the one that stands in its place, changed."""
    if bytes(value).lstrip()[:1] == b"[":
        return _raw([_in(element, change) for element in _array(value)])
    return _in(value, change)


def _in(value: msgspec.Raw, change: Change) -> msgspec.Raw:
    """An object, changed; anything else as it is."""
    return _raw(change(_object(value))) if bytes(value).lstrip()[:1] == b"{" else value


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))
