"""Takes the secrets out of arguments before they are kept (rule AUD-13).

The name of a member tells: what is called ``password``, ``apiKey`` or ``x-auth-token`` is replaced, whatever
its value is, at any depth. Secrets in free text are the guard's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REPLACEMENT = "[redacted]"
TOO_MUCH = "[not looked into]"
MAX_DEPTH = 64
MAX_VALUES = 20_000

_SECRET = re.compile(
    "passw(or)?d|passwd|passphrase|passcode|^pwd$|secret|token|bearer|apikey|accesskey|privatekey|signingkey|sharedkey|"
    "encryptionkey|authorization|^auth$|xauth|credential|cookie|sessionid|^sid$|jwt|^otp$|^pin$|connectionstring"
)
_SEPARATORS = re.compile(r"[\W_]+")
_NAMES = ("name", "key", "header")
_known: dict[str, bool] = {}
_PLAIN = frozenset({str, int, float, bool, type(None)})


def redact(value: Any) -> Any:
    """``value`` with secrets replaced; the very same object when there is none.

    >>> redact({"user": "ann", "login": {"apiKey": "k-1"}})
    {'user': 'ann', 'login': {'apiKey': '[redacted]'}}
    """
    return value if _harmless(value) else _Walk().through(value, 0)


def _harmless(value: Any) -> bool:
    """Whether a look at the top tells that nothing is secret: plain values under names already found harmless."""
    if type(value) is not dict or "value" in value:
        return False
    known = _known
    for name, member in value.items():  # noqa: SIM110 - a generator costs more than it says: this runs for every call
        if type(member) not in _PLAIN or known.get(name, True):
            return False
    return True


class _Walk:
    """One walk through one value. It ends after 20,000 values, so that a client cannot keep the writer busy;
    what it did not look into is not kept.
    """

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def through(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping | list | tuple):
            self.left -= len(value)
            if depth > MAX_DEPTH or self.left < 0:
                return TOO_MUCH
            return self._members(value, depth) if isinstance(value, Mapping) else self._items(value, depth)
        return value

    def _members(self, value: Mapping[Any, Any], depth: int) -> Mapping[Any, Any]:
        changed: dict[Any, Any] = {}
        for name, member in value.items():
            if looks_secret(name) and not _is_count(name, member):
                changed[name] = REPLACEMENT
            elif type(member) is not str:
                kept = self.through(member, depth + 1)
                if kept is not member:
                    changed[name] = kept
        if "value" in value and any(looks_secret(value.get(name)) for name in _NAMES):
            changed["value"] = REPLACEMENT  # {"name": "Authorization", "value": "Bearer …"}
        return {**value, **changed} if changed else value

    def _items(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any] | tuple[Any, ...]:
        kept = [self.through(item, depth + 1) for item in value]
        return kept if any(new is not old for new, old in zip(kept, value, strict=True)) else value


def looks_secret(name: Any) -> bool:
    """Whether a member of that name is likely to hold a secret.

    >>> [looks_secret(name) for name in ("X-Api-Key", "client_secret", "author", "path")]
    [True, True, False, False]
    """
    if not isinstance(name, str):
        return False
    found = _known.get(name)
    if found is None:
        found = _SECRET.search(_SEPARATORS.sub("", name).lower()) is not None
        if len(_known) < 4096 and len(name) <= 64:  # clients choose the names
            _known[name] = found
    return found


def _is_count(name: str, value: Any) -> bool:
    """``max_tokens: 100`` is a number of tokens, not a token."""
    return isinstance(value, int | float) and name.lower().endswith("tokens")
