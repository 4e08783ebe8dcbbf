"""The examples of docs/login.md, and of the part about scopes in docs/identity.md, load and mean what is said there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callgate.cli.app import app
from callgate.config import Settings, load
from callgate.gateway.scopes import ScopeRules
from callgate.types import Tool
from tests.conftest import ROOT


def example(page: str, tmp_path: Path) -> Settings:
    text = (ROOT / "docs" / page).read_text("utf-8")
    [block] = [each for each in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S) if "required_scopes" in each]
    file = tmp_path / "callgate.yaml"
    file.write_text(block, "utf-8")
    return load(file, env={"IDP_SECRET": "x"}, cwd=tmp_path, system=tmp_path / "none").settings


@pytest.mark.parametrize(
    ("page", "first", "push"),
    [("login.md", ("read",), "read write"), ("identity.md", ("read",), "read write")],
)
def test_the_examples_mean_what_is_said(tmp_path: Path, page: str, first: tuple[str, ...], push: str) -> None:
    settings = example(page, tmp_path)
    oauth = settings.identity.oauth
    assert oauth is not None
    rules = ScopeRules(settings.identity)
    assert rules.first(oauth.scopes) == first
    assert rules.lacking("read", Tool("git", "push", "git__push", b"{}")) == tuple(push.split())
    assert rules.lacking("read", Tool("git", "status", "git__status", b"{}")) == ()


def test_a_broader_scope_of_the_page_is_enough(tmp_path: Path) -> None:
    rules = ScopeRules(example("identity.md", tmp_path).identity)
    assert rules.lacking("admin", Tool("git", "delete_branch", "git__delete_branch", b"{}")) == ()
    assert rules.lacking("write", Tool("git", "delete_branch", "x", b"{}")) == ("write", "read", "admin")


def test_the_commands_of_the_page_are_there() -> None:
    text = (ROOT / "docs" / "login.md").read_text("utf-8")
    for name in ("login", "logout", "whoami"):
        assert f"callgate {name}" in text and app[name] is not None
