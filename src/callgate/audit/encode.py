"""How a record becomes a row: the columns that people filter by, and one JSON body for everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from callgate.audit.ids import show_id
from callgate.audit.record import Record
from callgate.audit.redact import redact
from callgate.store import AuditRow
from callgate.types import Actor, Principal, Shadow

Arguments = Literal["redacted", "full", "digest"]
NOT_ENCODABLE = "[not encodable]"
GAP = "gap"
MAX_REASON = 1000  # it may repeat what a server said, however long that was

_encoder = msgspec.json.Encoder(order="sorted")
#: For ``Body`` alone, whose fields are declared in their order.
_encode_body = msgspec.json.Encoder().encode


def canonical(value: object) -> bytes:
    """The one JSON text of a value: members sorted by name at every level, no spaces, UTF-8.

    Digests are made of this. Raises ``TypeError``, ``ValueError`` or ``RecursionError`` for what is not JSON.

    >>> canonical({"b": 1, "a": {"d": 2, "c": None}})
    b'{"a":{"c":null,"d":2},"b":1}'
    """
    return _encoder.encode(value)


class Body(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The JSON of a row, its members in the order of their names.

    ``args`` is an object, or a string where it was cut; absent members are empty.

    ``bytes_in`` and ``bytes_out`` are the sizes of the client's message and of the server's result.
    """

    args: msgspec.Raw | None = None
    args_sha256: str = ""
    asserted: tuple[dict[str, Any], ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    chain: tuple[dict[str, Any], ...] = ()
    door: str = ""
    dropped: int = 0
    duration_us: int = 0
    era: str = ""
    error_code: int | None = None
    guard: tuple[Mapping[str, Any], ...] = ()
    issuer: str = ""
    method: str = ""
    policy: str = ""
    reason: str = ""
    roles: tuple[str, ...] = ()
    rule: str = ""
    shadow: Shadow | None = None
    trace_id: str = ""
    transport: str = ""
    txn: str = ""
    until: str = ""
    upstream_us: int = 0
    version: str = ""
    via: str = ""


def encode(record: Record, arguments: Arguments, limit: int) -> AuditRow:
    """The row of one record. Never raises: one odd record must not stop the log."""
    principal = record.principal
    try:
        body = _encode_body(_body(record, principal, arguments, limit)).decode()
    except Exception as error:  # a value of a foreign type, or text that is not Unicode
        body = canonical(_remains(record, error)).decode()
    who, what = (clean(principal.tenant), clean(principal.subject)), (clean(record.server), clean(record.tool))
    return AuditRow(record.id, *who, *what, record.outcome, body)


def encode_gap(tenant: str, first: int, last: int, count: int) -> AuditRow:
    """The row that stands for records that found no room (rule AUD-3). It takes the id of the first of them."""
    reason = f"{count} records were dropped because the audit queue was full."
    body = canonical(Body(method="audit/gap", reason=reason, dropped=count, until=show_id(last)))
    return AuditRow(first, clean(tenant), "", "", "", GAP, body.decode())


def clean(text: str) -> str:
    """``text`` with lone surrogates escaped; neither SQL nor JSON can carry them."""
    try:
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    except AttributeError:  # not a string at all
        return repr(text)


def _body(record: Record, principal: Principal, arguments: Arguments, limit: int) -> Body:
    args, digest = _arguments(record.arguments, arguments, limit)
    front = record.front
    return Body(
        args,
        digest,
        tuple(map(_actor, principal.asserted)),
        record.bytes_in,
        record.bytes_out,
        tuple(map(_actor, principal.chain)),
        front.door,
        0,
        record.duration_ns // 1000,
        front.era,
        record.error_code,
        record.guard,
        principal.issuer,
        record.method,
        record.policy,
        record.reason[:MAX_REASON],
        principal.roles,
        record.rule,
        record.shadow,
        record.trace_id,
        front.transport,
        _txn(principal),
        "",
        record.upstream_ns // 1000,
        front.version,
        principal.via,
    )


def _arguments(value: Any, arguments: Arguments, limit: int) -> tuple[msgspec.Raw | None, str]:
    if value is None:
        return None, ""
    try:
        whole = canonical(value)
    except (TypeError, ValueError, RecursionError):
        return msgspec.Raw(canonical(NOT_ENCODABLE)), ""
    digest = hashlib.sha256(whole).hexdigest()
    if arguments == "digest":
        return None, digest
    if arguments == "redacted":
        kept = redact(value)
        if kept is not value:
            whole = canonical(kept)
    if len(whole) > limit:
        start = whole[:limit].decode("utf-8", "ignore")
        whole = canonical(f"{start}… [cut: {len(whole)} bytes]")
    return msgspec.Raw(whole), digest


def _actor(actor: Actor) -> dict[str, Any]:
    return {"iss": actor.issuer, "roles": actor.roles, "sub": actor.subject}


def _txn(principal: Principal) -> str:
    """The transaction that a token of ours belongs to, the same through all exchanges."""
    return str(principal.claims.get("txn", "")) if principal.audience else ""


def _remains(record: Record, error: Exception) -> Body:
    reason = f"{record.reason[:MAX_REASON]} [the record could not be encoded whole: {type(error).__name__}]"
    return Body(
        method=clean(record.method),
        policy=clean(record.policy),
        rule=clean(record.rule),
        shadow=record.shadow,
        reason=clean(reason),
        trace_id=clean(record.trace_id),
    )
