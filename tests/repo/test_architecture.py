"""The page that newcomers read names every file of the two largest rooms, and none that is not there."""

from __future__ import annotations

import re

import pytest

from checks.project import ROOT

PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("room", ["gateway", "upstream"])
def test_where_to_look_names_every_file(room: str) -> None:
    table = PAGE.partition(f"| In `{room}/` |")[2].partition("\n\n")[0]
    there = {file.stem for file in (ROOT / "src" / "callgate" / room).glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`([a-z_]+)`", table)) == there
