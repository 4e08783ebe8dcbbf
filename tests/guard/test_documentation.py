"""The example of docs/guard.md is a configuration that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callgate.config import load
from callgate.errors import ConfigError
from callgate.guard.rules import Rulebook
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "guard.md").read_text("utf-8")


def loaded(folder: Path, text: str) -> Rulebook:
    file = folder / "callgate.yaml"
    file.write_text(text, "utf-8")
    return Rulebook(load(file, env={}, cwd=folder, system=folder / "none").settings.guard)


def test_the_example_loads_and_means_what_the_page_says(tmp_path: Path) -> None:
    book = loaded(tmp_path, re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
    assert (book.of("mail/send").pin, book.of("web/get").pin) == ("changes", "all")
    assert (book.of("mail/search").arguments, book.of("web/get").arguments) == ("off", "validate")
    assert book.of("web/get").results == "block" and book.of("web/get").max_result.over == "spill"
    assert book.spills and book.calls


def test_the_first_glob_that_says_something_counts(tmp_path: Path) -> None:
    rules = 'guard: {results: warn, tools: {"u/a": {pin: all}, "u/*": {pin: changes, results: block}}}'
    book = loaded(tmp_path, "servers: {u: {command: x}}\n" + rules)
    assert (book.of("u/a").pin, book.of("u/a").results) == ("all", "block")
    assert (book.of("u/b").pin, book.of("v/b").results) == ("changes", "warn")


@pytest.mark.parametrize(
    ("glob", "says"),
    [("web", "is not of the form `server/tool`"), ("wbe/*", "no server matches"), ("/x", "is not of the form")],
)
def test_a_glob_that_matches_nothing_is_a_mistake(tmp_path: Path, glob: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        loaded(tmp_path, f'servers: {{web: {{command: x}}}}\nguard: {{tools: {{"{glob}": {{pin: all}}}}}}')


@pytest.mark.parametrize("guard", ["arguments: validate", "results: warn", 'tools: {"u/*": {results: block}}'])
def test_without_the_validator_nothing_passes_unseen(
    tmp_path: Path, guard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.config.guard_checks.VALIDATOR", "no_such_package_here")
    with pytest.raises(ConfigError, match="needs the package jsonschema-rs"):
        loaded(tmp_path, f"servers: {{u: {{command: x}}}}\nguard: {{{guard}}}")
    loaded(tmp_path, "servers: {u: {command: x}}\nguard: {pin: all}")
