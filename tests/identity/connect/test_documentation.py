"""The examples of docs/upstream-identity.md are configurations that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callgate.config import load
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "upstream-identity.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[re.findall(r"type: (\w+)", each)[0] for each in EXAMPLES])
def test_the_examples_load(tmp_path: Path, example: str) -> None:
    file = tmp_path / "callgate.yaml"
    file.write_text(example, "utf-8")
    assert load(file, env={}, cwd=tmp_path, system=tmp_path / "none").settings.servers


def test_every_type_has_an_example() -> None:
    shown = set(re.findall(r"type: (\w+)", "".join(EXAMPLES)))
    assert shown == {
        "assertion", "exchange", "on_behalf_of", "client_credentials", "oauth", "enterprise", "workload",
    }  # fmt: skip
