"""The package declares what it imports, and its commands exist."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

from checks.docs_match import TARGET
from checks.project import ROOT, files

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Where the name of the module is not the name of the package.
PACKAGE = {"yaml": "pyyaml", "grpc": "grpcio"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path, *, at_once: bool = False) -> set[str]:
    """What a file imports; ``at_once``: when it is itself imported, and not when a function needs it."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"callgate"}


def packages(lines: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=!;\[ ]", line)[0]) for line in lines}


def names_at_once(path: Path) -> set[str]:
    return {normal(PACKAGE.get(name, name)) for name in imported(path, at_once=True)}


#: What extras bring: only a function may import it, where it can say which extra is missing.
OPTIONAL = {
    name
    for extra, lines in PYPROJECT["project"]["optional-dependencies"].items()
    if extra not in ("dev", "bench")
    for name in packages(lines)
}


def test_every_import_of_the_package_is_a_core_dependency() -> None:
    declared = packages(PYPROJECT["project"]["dependencies"])
    undeclared = {
        f"{path.relative_to(ROOT).as_posix()}: {name}"
        for path in files(ROOT, ".py")
        if path.is_relative_to(ROOT / "src")
        for name in imported(path)
        if normal(PACKAGE.get(name, name)) not in declared | (OPTIONAL - names_at_once(path))
    }
    assert undeclared == set()


def test_the_sdk_and_pydantic_stay_outside() -> None:
    """They model messages and drop what they do not know; nothing may be relayed through them."""
    names = {name for path in files(ROOT / "src", ".py") for name in imported(path)}
    assert names & {"mcp", "mcp_types", "pydantic", "fastmcp"} == set()


def test_the_readme_begins_with_the_two_commands() -> None:
    """A newcomer's two commands stand in the first block of code, and the Makefile has them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^\s*\$?\s*(make [a-z]+)", "".join(blocks), re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
    assert {command.split()[1] for command in commands} <= set(TARGET.findall(MAKEFILE))


def test_every_command_of_the_makefile_is_explained_by_it() -> None:
    explained = set(re.findall(r"make ([a-z]+)", MAKEFILE.split("\n\n")[0]))
    assert set(TARGET.findall(MAKEFILE)) - {"help"} == explained


def test_the_typed_marker_is_there() -> None:
    assert (ROOT / "src" / "callgate" / "py.typed").exists()
