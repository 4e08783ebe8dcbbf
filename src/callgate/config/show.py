"""``callgate config show``: every setting, its value, and where it comes from; secrets masked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from .decode import dotted
from .load import Loaded, leaves

MASK = "********"
_SECRET = re.compile(
    r"token|secret|passw|passphrase|pwd|credential|auth|cookie|session|signature|private|bearer|(^|[-_.])(pat|sig|key)($|[-_.])|(api|access)[-_]?key|key$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"(env|file|secret|secret://\w+|vault|k8s|op|keyring|local):\S+")
_USERINFO = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*(?=@)")
_QUERY = re.compile(r"(?<=[?&])([^=&#]+)=([^&#]*)")


class Row(NamedTuple):
    """``origin`` is empty when it was not asked for."""

    key: str
    value: Any
    origin: str


def show(loaded: Loaded, *, origin: bool = False) -> list[Row]:
    """The settings as rows, defaults included, in the order of the reference."""
    return [Row(key, value, str(loaded.origins[key]) if origin else "") for key, value in _values(loaded)]


def _values(loaded: Loaded) -> Iterator[tuple[str, Any]]:
    for path, value in leaves(loaded.settings, lambda path: dotted(path) in loaded.origins):
        yield dotted(path), masked(str(path[-1]), msgspec.to_builtins(value))


def masked(key: str, value: Any) -> Any:
    """``value`` of the setting ``key`` without what looks like a secret; references (``env:NAME``) are none."""
    if key in ("env", "headers") and isinstance(value, Mapping):
        return {name: _by_name(str(name), text) for name, text in value.items()}
    if key == "args" and isinstance(value, Sequence):
        return _arguments([str(part) for part in value])
    if key in ("url", "proxy", "jwks_uri", "token_endpoint") and isinstance(value, str):
        return _url(value)
    return value


def _by_name(name: str, text: Any) -> Any:
    if not isinstance(text, str) or _REFERENCE.fullmatch(text) or not text:
        return text
    return MASK if _SECRET.search(name) else _url(text)


def _url(text: str) -> str:
    text = _USERINFO.sub(rf"\1:{MASK}", text)
    return _QUERY.sub(lambda found: f"{found[1]}={MASK}" if _SECRET.search(found[1]) else found[0], text)


def _arguments(args: list[str]) -> list[str]:
    """``--token abc`` and ``--token=abc``."""
    shown: list[str] = []
    secret = False
    for arg in args:
        name, sign, _ = arg.partition("=")
        flag = arg.startswith("-")
        if secret and not flag:
            shown.append(MASK)
        elif sign and "://" not in name and _SECRET.search(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(_url(arg))
        secret = flag and not sign and bool(_SECRET.search(name))
    return shown
