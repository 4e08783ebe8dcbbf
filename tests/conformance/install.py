"""Install the official suite once into a cache folder, with a Node that is new enough for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import npm

from .suite import Suite, SuiteError

SUITE = "0.2.0-alpha.12"


def install(folder: Path, tell: Callable[[str], None]) -> Suite:
    """The suite in ``folder``, installed with npm when it is not there. Brings its own Node if need be."""
    package = folder / "node_modules" / "@modelcontextprotocol" / "conformance"
    node = npm.node_in(folder)
    if node is not None and _installed(package):
        return Suite(node, package)
    wanted = f"@modelcontextprotocol/conformance@{SUITE}"
    tell(f"installing {wanted} into {folder}")
    try:
        node = npm.install(folder, [wanted])
    except npm.NpmError as why:
        raise SuiteError(str(why)) from why
    if not _installed(package):
        raise SuiteError(f"npm finished, but {package} is not there")
    return Suite(node, package)


def _installed(package: Path) -> bool:
    manifest = package / "package.json"
    return manifest.is_file() and f'"version": "{SUITE}"' in manifest.read_text("utf-8")
