from __future__ import annotations

from typing import Any

import msgspec
import pytest

from callgate.types import Front
from callgate.upstream import capabilities
from callgate.upstream.capabilities import for_legacy, for_modern

pytestmark = pytest.mark.rule("EXT-3")

UI = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}
TASKS: dict[str, Any] = {"io.modelcontextprotocol/tasks": {}}
CLIENT_TASKS: dict[str, Any] = {"list": {}, "requests": {"elicitation": {"create": {}}}}


def modern(given: Any, **front: Any) -> Any:
    return msgspec.json.decode(for_modern(Front(capabilities=given, **front)))


def legacy(given: Any, era: Any = "legacy") -> Any:
    return msgspec.json.decode(for_legacy(Front(capabilities=given, era=era)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {}),
        ({"elicitation": {}}, {"elicitation": {"form": {}}}),
        ({"elicitation": {"url": {}}}, {"elicitation": {"url": {}}}),
        ({"elicitation": {"form": {}, "url": {}, "voice": {}}}, {"elicitation": {"form": {}, "url": {}}}),
        ({"sampling": {}}, {"sampling": {}}),
        ({"sampling": {"tools": {}, "context": {}, "video": {}}}, {"sampling": {"tools": {}, "context": {}}}),
        ({"roots": {"listChanged": True}}, {"roots": {}}),
        ({"tasks": CLIENT_TASKS}, {}),
        ({"extensions": UI | TASKS}, {"extensions": UI | TASKS}),
        ({"extensions": {"io.modelcontextprotocol/oauth-client-credentials": {}}}, {}),
        ({"experimental": {"x": {}}, "unknown": {}}, {}),
        ({"elicitation": True, "sampling": 1, "roots": None, "extensions": []}, {}),
        ({"extensions": {"a/b": "no object"}}, {}),
        ({"extensions": {"a/b": {"x": "y" * 20_000}}}, {}),
    ],
)
def test_what_a_modern_server_is_told(given: Any, told: Any) -> None:
    assert modern(given) == told
    assert modern(given) == told  # from memory


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {}),
        ({"elicitation": {}}, {"elicitation": {"form": {}}}),
        ({"roots": {"listChanged": True}}, {"roots": {"listChanged": True}}),
        ({"roots": {"listChanged": "yes"}}, {"roots": {}}),
        ({"tasks": CLIENT_TASKS | {"unknown": {}}}, {"tasks": CLIENT_TASKS}),
        ({"extensions": UI | TASKS}, {"extensions": UI}),
        ({"experimental": {}}, {}),
    ],
)
def test_what_a_legacy_server_is_told_of_a_legacy_client(given: Any, told: Any) -> None:
    assert legacy(given) == told


def test_what_only_legacy_clients_can_do_is_not_said_of_modern_ones() -> None:
    given = {"roots": {"listChanged": True}, "tasks": CLIENT_TASKS, "sampling": {}}
    assert legacy(given, "modern") == {"roots": {}, "sampling": {}}


def test_equal_declarations_are_equal_bytes() -> None:
    one = Front(capabilities={"sampling": {}, "elicitation": {"form": {}}})
    other = Front(capabilities={"elicitation": {}, "sampling": {}})
    assert for_legacy(one) == for_legacy(other)


def test_a_client_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_memo", {})
    for n in range(capabilities._REMEMBERED + 10):
        modern({"extensions": {f"a/{n}": {}}})
    modern({"x": "y" * 10_000})
    assert len(capabilities._memo) <= capabilities._REMEMBERED
    assert all(len(key) < 10_000 for _, key in capabilities._memo)
