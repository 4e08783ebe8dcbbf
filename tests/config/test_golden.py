"""Every mistake is told the way a person can mend it: ``tests/golden/config/*.case`` hold files and the error.

A case begins with a comment and has parts ``--- NAME``: files of the folder (the first one is loaded), ``env``
(``NAME=value`` lines) and ``error`` (what must be shown; ``DIR`` stands for the folder).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callgate.config import load, render
from callgate.errors import ConfigError

CASES = Path(__file__).parent.parent / "golden" / "config"


def parts(text: str) -> dict[str, str]:
    found = re.split(r"^--- (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.case")))
def test_error(name: str, tmp_path: Path) -> None:
    case = parts((CASES / f"{name}.case").read_text(encoding="utf-8"))
    expected = case.pop("error")
    env = dict(line.split("=", 1) for line in case.pop("env", "").splitlines())
    for file, text in case.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(Path(next(iter(case))), env={"HOME": str(tmp_path), **env}, cwd=tmp_path, system=tmp_path / "none")
    assert render(caught.value).replace(str(tmp_path), "DIR") == expected.rstrip("\n")
    assert caught.value.exit_code == 3


def test_there_are_cases() -> None:
    assert len(list(CASES.glob("*.case"))) >= 15
