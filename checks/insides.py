"""The contract that rooms do not import each other's insides, for import-linter.

``callgate.policy.compile`` is an inside of ``callgate.policy``: only modules of that room may import it.
Others import ``callgate.policy`` and get what its ``__init__`` names.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def room(module: str) -> str:
    """The room of a module: the first two parts of its name."""
    return ".".join(module.split(".")[:2])


@functools.cache
def offers(name: str) -> frozenset[str]:
    """What the ``__all__`` of a room names."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return frozenset()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


class InsidesContract(Contract):
    """``package`` is the house; ``open_modules`` are insides that everybody may import all the same."""

    type_name = "insides"

    package = fields.StringField()
    open_modules = fields.SetField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        broken = [
            f"{importer}:{line} imports {imported}; import what {room(imported)} names instead"
            for imported in self._closed(graph)
            for importer in sorted(graph.find_modules_that_directly_import(imported))
            if room(importer) != room(imported)
            for line in _trespasses(graph, importer, imported)
        ]
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def _closed(self, graph: ImportGraph) -> list[str]:
        values: Any = self  # the fields hold their values once the contract is read
        inside = {
            module for module in graph.modules if module.startswith(f"{values.package}.") and module != room(module)
        }
        return sorted(inside - set(values.open_modules or ()))

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["broken"]:
            output.print_error(line, bold=False)


def _trespasses(graph: ImportGraph, importer: str, imported: str) -> Iterator[int]:
    """The lines that import an inside. A name that the room offers may be that of a module as well."""
    name = imported.rpartition(".")[2]
    for detail in graph.get_import_details(importer=importer, imported=imported):
        through_the_door = detail["line_contents"].strip().startswith(f"from {room(imported)} import")
        if not (through_the_door and name in offers(room(imported))):
            yield detail["line_number"]
