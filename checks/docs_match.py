"""The documents match the code and each other.

Generated pages equal what their generators give, every link between pages leads somewhere, every page can be
reached from the README or from ``docs/ARCHITECTURE.md``, that page lists the rooms that exist, and every ``make``
target that a page names exists.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from checks.project import ROOT, files, report

# Each is run as ``python -m MODULE --write`` or, to compare, ``--check``.
GENERATORS = ("checks.rules", "callgate.config.reference", "callgate.cli.reference", "callgate.gateway.reference")
ENTRANCES = ("README.md", "docs/ARCHITECTURE.md")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[^\n]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
MAKE = re.compile(r"(?<![\w/-])make ([a-z]+)\b")
ROOM = re.compile(r"^\| `([a-z]+)/` \|", re.MULTILINE)
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)


def generated(root: Path, *, write: bool) -> list[str]:
    """Run every generator that exists; what they complain of."""
    wrong: list[str] = []
    for module in GENERATORS:
        if not _exists(root, module):
            continue
        command = [sys.executable, "-m", module, "--write" if write else "--check"]
        path = os.pathsep.join([str(root / "src"), str(root)])
        ran = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if ran.returncode:
            wrong.append(f"{module}: {(ran.stdout + ran.stderr).strip() or 'failed'}")
    return wrong


def _exists(root: Path, module: str) -> bool:
    """Whether the generator is written yet; one that does not import is a failure, not an absence."""
    file = Path(*module.split(".")).with_suffix(".py")
    return (root / file).exists() or (root / "src" / file).exists()


def prose(text: str) -> str:
    """The text of a page without its code, where nothing is a link."""
    return CODE.sub("", FENCE.sub("", text))


def anchor(heading: str) -> str:
    """The anchor that readers' software makes of a heading.

    >>> anchor("The life of one call, `in brief`")
    'the-life-of-one-call-in-brief'
    """
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {anchor(found) for found in HEADING.findall(FENCE.sub("", text))}


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """The links of a page to files: as written, the file, and the anchor in it."""
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, fragment = target.partition("#")
        yield target, (page.parent / path).resolve() if path else page, fragment


def broken_links(root: Path) -> list[str]:
    wrong = []
    for page in files(root, ".md"):
        name = page.relative_to(root).as_posix()
        for target, path, fragment in links(page):
            if not path.exists():
                wrong.append(f"{name}: the link {target} leads nowhere")
            elif fragment and path.suffix == ".md" and fragment not in anchors(path.read_text(encoding="utf-8")):
                wrong.append(f"{name}: {target}: there is no such heading")
    return wrong


def unreachable(root: Path) -> list[str]:
    """Pages under ``docs`` to which no path of links leads."""
    waiting = [root / name for name in ENTRANCES if (root / name).exists()]
    seen: set[Path] = set(waiting)
    while waiting:
        for _, path, _ in links(waiting.pop()):
            if path.suffix == ".md" and path.exists() and path not in seen:
                seen.add(path)
                waiting.append(path)
    pages = [page for page in files(root, ".md") if page.is_relative_to(root / "docs")]
    return [
        f"{page.relative_to(root).as_posix()}: no page leads here from {' or '.join(ENTRANCES)}"
        for page in pages
        if page.resolve() not in seen
    ]


def unknown_targets(root: Path) -> list[str]:
    """``make`` targets that a page names as code and that the Makefile does not have."""
    known = set(TARGET.findall((root / "Makefile").read_text(encoding="utf-8")))
    wrong = []
    for page in files(root, ".md"):
        text = page.read_text(encoding="utf-8")
        code = "\n".join([*(m[0] for m in FENCE.finditer(text)), *CODE.findall(FENCE.sub("", text))])
        for target in sorted(set(MAKE.findall(code)) - known):
            wrong.append(f"{page.relative_to(root).as_posix()}: `make {target}` is no target of the Makefile")
    return wrong


def other_rooms(root: Path) -> list[str]:
    """Rooms without a line in the table of the architecture page, and lines without a room."""
    page = root / "docs" / "ARCHITECTURE.md"
    listed = set(ROOM.findall(page.read_text(encoding="utf-8")))
    rooms = {path.parent.name for path in (root / "src" / "callgate").glob("*/__init__.py")}
    return [
        *(f"docs/ARCHITECTURE.md: the room {name}/ is missing in the table" for name in sorted(rooms - listed)),
        *(f"docs/ARCHITECTURE.md: there is no room {name}/" for name in sorted(listed - rooms)),
    ]


def problems(root: Path) -> list[str]:
    return [
        *generated(root, write=False),
        *broken_links(root),
        *unreachable(root),
        *other_rooms(root),
        *unknown_targets(root),
    ]


def main(arguments: list[str], root: Path = ROOT) -> int:
    if "--write" in arguments:
        return report(generated(root, write=True), "The generated pages are written.")
    return report(problems(root), "The documents match the code and each other.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
