"""docs/audit.md names every kind of record that the code writes beside those of calls."""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "audit.md").read_text("utf-8")
METHOD = re.compile(r'"((?:oauth|admin)/[a-z_-]+)"')


def test_every_method_of_a_record_is_told() -> None:
    written = {
        name for file in (ROOT / "src" / "callgate").rglob("*.py") for name in METHOD.findall(file.read_text("utf-8"))
    }
    told = set(re.findall(r"`((?:oauth|admin)/[a-z_-]+)`", PAGE))
    assert written == told and "oauth/token" in told
