"""Nothing that is committed names this machine: no local folders, no home, no package registry.

A project that builds only where it was written is not finished, and a registry host in a file overrides the
mirror that somebody else's machine is told to use.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from checks.project import ROOT, files, report

TEXT_LIMIT = 2 * 1024 * 1024
# Written in pieces, so that this page does not find itself.
REGISTRIES = "|".join(
    re.escape(host)
    for host in (
        "pypi" + ".org",
        "python" + "hosted.org",
        "registry.npm" + "js.org",
        "registry.yarn" + "pkg.com",
        "proxy.go" + "lang.org",
        "static.crates" + ".io",
    )
)
ALWAYS = (
    (re.compile(rf"\b(?:[a-z]+\.)*(?:{REGISTRIES})"), "a package registry; use the machine's own configuration"),
    (re.compile(r"\.\./sha" + r"red/"), "a folder beside the project"),
    (re.compile(r"/(?:Us" + r"ers|ho" + r"me)/[a-z][a-z0-9_-]*/"), "somebody's home"),
    (re.compile(r"\.lib" + r"rary/"), "a folder of the machine it was written on"),
)


def here(root: Path) -> list[tuple[re.Pattern[str], str]]:
    """Patterns for the folders of the machine that runs the check."""
    local = {str(root), str(root.parent), str(Path.home())} - {"/"}
    return [(re.compile(re.escape(folder) + "/"), "a folder of this machine") for folder in sorted(local)]


def judge(path: Path, name: str, patterns: list[tuple[re.Pattern[str], str]]) -> Iterator[str]:
    """What one file names; binary and very large files are left alone."""
    data = path.read_bytes()
    if len(data) > TEXT_LIMIT or b"\0" in data[:4096]:
        return
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        for pattern, what in patterns:
            if match := pattern.search(line):
                yield f"{name}:{number}: `{match[0]}` names {what}"


def problems(root: Path) -> list[str]:
    patterns = [*ALWAYS, *here(root)]
    return [each for path in files(root) for each in judge(path, path.relative_to(root).as_posix(), patterns)]


def main(root: Path = ROOT) -> int:
    return report(problems(root), "No file names this machine or a package registry.")


if __name__ == "__main__":
    sys.exit(main())
