"""The examples of docs/sign-in.md are configurations that load."""

from __future__ import annotations

import re
from pathlib import Path

from callgate.config import Settings, load
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "sign-in.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "callgate.yaml"
    file.write_text(text, "utf-8")
    return load(file, env={}, cwd=folder, system=folder / "none").settings


def test_the_first_example(tmp_path: Path) -> None:
    settings = loaded(tmp_path, BLOCKS[0])
    assert settings.identity.providers["work"].role_map["everybody"] == ("reader",)


def test_the_examples_of_providers(tmp_path: Path) -> None:
    entries = "".join(f"    {line}\n" for block in BLOCKS[1:] for line in block.splitlines())
    text = f"public_url: https://mcp.example.org\nidentity:\n  oauth: {{}}\n  providers:\n{entries}"
    found = loaded(tmp_path, text).identity.providers
    assert list(found) == ["okta", "entra", "google", "ping", "keycloak"]
    assert found["google"].required_claims == {"hd": "example.org"}
