"""Every key of ``callgate.yaml`` does something: for each there is a test that shows its effect.

Such a test carries ``@pytest.mark.key("limits.max_body")``. Keys inside maps and lists are written without what is
between: ``servers.url``, ``identity.keys.subject``.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec

from callgate.config import Settings

TESTS = Path(__file__).resolve().parent.parent


def keys(type_: Any = Settings, before: str = "") -> Iterator[str]:
    """The dotted names of all settings that hold a value, not further settings."""
    hints = typing.get_type_hints(type_)
    for field in msgspec.structs.fields(type_):
        name = f"{before}{field.encode_name}"
        inner = list(structs(hints[field.name]))
        if not inner:
            yield name
        for each in inner:
            yield from keys(each, f"{name}.")


def structs(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for part in typing.get_args(hint) if not isinstance(hint, UnionType) else hint.__args__:
        yield from structs(part)


def marked() -> dict[str, str]:
    """The keys that tests carry, with one test for each."""
    found: dict[str, str] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text("utf-8")
        if "mark.key(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.key":
                for argument in node.args:
                    key = argument.value if isinstance(argument, ast.Constant) else None
                    assert isinstance(key, str), f"{path}:{node.lineno}: a key is written out"
                    found[key] = f"{path.name}:{node.lineno}"
    return found


def test_the_walk_finds_keys_in_maps_lists_and_structures() -> None:
    found = set(keys())
    assert {"listen", "limits.max_body", "servers.url", "identity.keys.subject", "identity.jwt.leeway"} <= found
    assert not {"limits", "servers", "identity.keys"} & found
    assert len(found) > 60


def test_every_key_has_a_test_that_shows_its_effect() -> None:
    missing = sorted(set(keys()) - set(marked()))
    assert not missing, f"no test carries a marker for: {', '.join(missing)}"


def test_markers_name_keys_that_exist() -> None:
    known = set(keys())
    groups = {key[:at] for key in known for at in range(len(key)) if key[at] == "."}
    unknown = {key: where for key, where in marked().items() if key not in known | groups}
    assert not unknown
