"""The published schema and reference say what the model says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from callgate.config import Settings, parse_document, schema
from callgate.config.decode import fields
from callgate.config.reference import _inner, main, pages, reference
from callgate.config.show import show
from tests.config.folder import Folder

DOCS = Path(__file__).parent.parent.parent / "docs"
WHOLE = """\
listen: 127.0.0.1:8080
servers:
  time: {command: uvx, args: [mcp-server-time], env: {TZ: UTC}, connect_timeout: 20s, max_message: 1MiB}
  docs: {url: https://example.org/mcp, headers: {Authorization: "secret:docs-token"}, call_timeout: 1.5}
virtual_servers:
  coder: {tools: [time/*, docs/search]}
identity:
  anonymous: true
  keys: [{subject: agent:ci, roles: [coder], sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]
  jwt: [{issuer: https://idp.example.org, audience: callgate, jwks_uri: https://idp.example.org/jwks, leeway: 5s}]
policy: {version: 1}
startup_wait: 0
"""


def keys(type_: Any, section: str = "Keys") -> Iterator[tuple[str, str]]:
    """Every key of the model with the heading it stands under."""
    for key, field in fields(type_).items():
        yield section, key
        inner, name = _inner(field.type, key if section == "Keys" else f"{section}.{key}")
        if inner is not None:
            yield from keys(inner, name)


@pytest.mark.parametrize(("section", "key"), list(keys(Settings)))
def test_every_key_is_in_the_reference_with_a_meaning(section: str, key: str) -> None:
    part = reference().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    row = next(line for line in part.splitlines() if line.startswith(f"| `{key}` |"))
    meaning = row.rsplit(" | ", 1)[1].removesuffix(" |")
    assert len(meaning) > 10


def test_the_published_pages_are_those_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in pages().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, "run `python -m callgate.config.reference`"
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "configuration.md").write_text("old")
    assert main(["--check", str(tmp_path)]) == 1
    assert "configuration.md differs" in capsys.readouterr().err
    assert main(["--chek"]) == 2


def test_the_schema_accepts_what_the_loader_accepts(folder: Folder) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    folder.load(WHOLE)
    jsonschema.validate(parse_document(WHOLE, "x.yaml").data, schema())


@pytest.mark.parametrize(
    "text",
    [
        "lisen: x", "listen: 5", "limits: {max_body: lots}", "limits: {max_body: 0}", "limits: {idle_timeout: soon}",
        "servers: {a b: {command: x}}", "servers: {a: {command: x, url: 'http://x'}}", "servers: {a: {disabled: true}}",
        "virtual_servers: {v: {tools: []}}", "identity: {keys: [{subject: a, sha256: abc}]}", "log_level: loud",
        "servers: {a: {command: x, comand: y}}", "audit: {queue: 1.5}",
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_loader_refuses(folder: Folder, text: str) -> None:
    if text != "listen: 5":  # an address here, a type there: refused by both
        assert folder.refused(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(parse_document(text, "x.yaml").data, schema())


def test_every_key_of_the_schema_has_a_description() -> None:
    whole = schema()
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in (whole, *whole["$defs"].values()):
        for key, value in part["properties"].items():
            assert value.get("description"), key
    json.dumps(whole)


def test_the_reference_shows_the_defaults_that_hold(folder: Folder) -> None:
    rows = {row.key: row.value for row in show(folder.load())}
    assert rows["limits.max_body"] == 4 * 2**20
    assert "| `max_body` | size | `4MiB` |" in reference()
