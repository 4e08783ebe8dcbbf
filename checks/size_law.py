"""The laws of size: small files, small functions, few parameters, names that say something.

Files of at most 400 lines, functions of at most 40, at most 5 positional parameters (``self`` apart), no
module or class that is called by what it is not about. ``size_law.toml`` names the exceptions.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checks.project import ROOT, files, report

FILE_LINES = 400
FUNCTION_LINES = 40
PARAMETERS = 5
CATCH_ALL_MODULE = re.compile(r"^_*(utils?|helpers?|common|misc|managers?|services?|stuff|base|core|lib)$")
CATCH_ALL_CLASS = re.compile(r"(Manager|Helper|Util|Utils|Service|Impl)$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Limits:
    """The limits with their exceptions; ``needed`` collects those that something really needs."""

    exceptions: Mapping[str, Mapping[str, Any]]
    needed: set[str] = field(default_factory=set)

    def of(self, name: str, kind: str, limit: int, actual: int) -> int:
        own = self.exceptions.get(name, {}).get(kind)
        if own is None:
            return limit
        if own <= limit or actual > limit:
            self.needed.add(f"{name} {kind}")
        return int(own)

    def unneeded(self) -> Iterator[str]:
        for name, entry in self.exceptions.items():
            if not str(entry.get("why", "")).strip():
                yield f"{name}: an exception needs a reason (`why`)"
            for kind in entry.keys() - {"why"}:
                if f"{name} {kind}" not in self.needed:
                    yield f"{name}: the exception for {kind} is not needed any more; remove it"


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function of a module with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def positional(function: Function) -> int:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (1 if names[:1] in (["self"], ["cls"]) else 0)


def length(function: Function) -> int:
    """Lines from ``def`` to the end; decorators belong to the caller's side of the page."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def judge(path: Path, name: str, limits: Limits) -> Iterator[str]:
    """What one source file breaks. ``name`` is its path inside the project."""
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    limit = limits.of(name, "lines", FILE_LINES, lines)
    if lines > limit:
        yield f"{name}: {lines} lines, at most {limit}"
    if CATCH_ALL_MODULE.match(path.stem) or CATCH_ALL_MODULE.match(path.parent.name):
        yield f"{name}: name the file after what is in it"
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and CATCH_ALL_CLASS.search(node.name):
            yield f"{name}:{node.lineno}: class {node.name}: use a word of the domain"
    for dotted, function in functions(tree):
        yield from _judge_function(name, dotted, function, limits)


def _judge_function(name: str, dotted: str, function: Function, limits: Limits) -> Iterator[str]:
    where, key = f"{name}:{function.lineno}: {dotted}", f"{name}:{dotted}"
    for kind, law, actual in (
        ("lines", FUNCTION_LINES, length(function)),
        ("parameters", PARAMETERS, positional(function)),
    ):
        limit = limits.of(key, kind, law, actual)
        if actual > limit:
            yield f"{where}: {actual} {kind}, at most {limit}"


def problems(root: Path) -> list[str]:
    """Everything in ``src`` that breaks a law, and every exception that is not needed."""
    listed = root / "checks" / "size_law.toml"
    limits = Limits(tomllib.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {})
    found: list[str] = []
    for path in files(root, ".py"):
        name = path.relative_to(root).as_posix()
        if name.startswith("src/"):
            found += judge(path, name, limits)
    return found + list(limits.unneeded())


def main(root: Path = ROOT) -> int:
    return report(problems(root), "Every file and function keeps the laws of size.")


if __name__ == "__main__":
    sys.exit(main())
