"""The npm packages of the TypeScript scripts, and a Node that can run them: installed once into the cache folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests import npm
from tests.clients.venvs import alone
from tests.processes import CACHE

FOLDER = CACHE / "matrix"
MODULES = FOLDER / "node_modules"
PACKAGES = [
    "@modelcontextprotocol/sdk@>=1.25 <2",
    "@modelcontextprotocol/server@>=2.4 <3",
    "@modelcontextprotocol/client@>=2.4 <3",
    "@modelcontextprotocol/node@>=2.1 <3",
]


@cache
def node() -> Path:
    """A Node that is new enough, the packages installed beside it when they are not there yet."""
    stamp = FOLDER / "callgate-packages.txt"
    wanted = "\n".join(PACKAGES)
    with alone(FOLDER.with_suffix(".lock")):
        found = npm.node_in(FOLDER)
        if found is None or not stamp.is_file() or stamp.read_text("utf-8") != wanted:
            found = npm.install(FOLDER, PACKAGES)
            stamp.write_text(wanted, "utf-8")
    return found


if __name__ == "__main__":
    print(node())
