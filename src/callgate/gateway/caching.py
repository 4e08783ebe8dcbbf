"""Caching hints: how long a client, or a cache on its way, may keep what it was told, and whom it may show it to.

callgate itself keeps lists (``listing.py``) and no answers of ``resources/read``: their servers say how long a client
may keep them, and a request that policy does not see would not be in the audit log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from callgate.types import Answer

if TYPE_CHECKING:
    from callgate.catalog import View
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked

#: The longest lifetime of a list, in milliseconds: settings and policy may change at any moment.
EPOCH = 60_000
#: What a retry carries: nothing that comes of it is kept (rules CACHE-7, MRTR-10).
RETRIES = frozenset({"inputResponses", "requestState"})

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def of_list(house: House, view: View, method: str, *, lasting: bool) -> tuple[int, bool]:
    """The lifetime in milliseconds of a list and whether it is public: the least that all servers grant, and nothing
    while one of them is missing. ``lasting`` says that what the caller may see does not change with the time.
    """
    hint = view.hints.get(method)
    if hint is None or not lasting or not house.catalog.complete:
        return 0, False
    ttl, scope = hint
    paged = len(view.entries(method)) > house.settings.list_page_size  # its cursors are the caller's own
    return min(ttl, EPOCH), scope == "public" and not paged and open_to_all(house)


def of_read(answer: Answer, asked: Asked, house: House) -> Answer:
    """A read result with the server's hints as they hold behind a policy; an ``input_required`` one has none."""
    if answer.error is not None or answer.result_type not in (None, "complete"):
        return answer
    members = _members(answer.result)
    ttl, public = _lifetime(members.get("ttlMs")), members.get("cacheScope") == msgspec.Raw(b'"public"')
    if RETRIES & asked.params.keys():
        ttl, public = 0, False
    scope = b'"public"' if public and open_to_all(house) else b'"private"'
    hinted = {**members, "ttlMs": msgspec.Raw(b"%d" % ttl), "cacheScope": msgspec.Raw(scope)}
    return msgspec.structs.replace(answer, result=_encode(hinted))


def open_to_all(house: House) -> bool:
    """Whether everybody who reaches the gateway may see everything: there is no rule and nobody needs a credential."""
    policy = house.policy
    ruled = policy.default == "deny" or policy.rules or policy.treats
    return not ruled and house.recogniser.anonymous is not None


def _lifetime(hint: msgspec.Raw | None) -> int:
    """A server's ``ttlMs``; what is absent, negative or no integer counts as 0 (rule CACHE-6)."""
    text = bytes(hint) if hint is not None else b""
    return int(text) if text.isdigit() and len(text) < 16 else 0
