"""The examples of docs/secrets.md and docs/egress.md are configurations that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from callgate.config import load, places
from tests.conftest import ROOT


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.rule("SEC-1")
def test_the_example_of_secrets_loads_and_every_kind_of_reference_is_in_the_table(tmp_path: Path) -> None:
    (text,) = (each for each in blocks("secrets.md") if "servers:" in each)
    settings = load(_written(tmp_path, text), env={"HOME": str(tmp_path)}, cwd=tmp_path, system=tmp_path / "x").settings
    kinds = {value.partition(":")[0] for _, value in places(settings)}
    assert {"secret", "vault", "k8s", "op", "file", "env"} <= kinds


def test_the_role_for_kubernetes_is_yaml(tmp_path: Path) -> None:
    (text,) = (each for each in blocks("secrets.md") if "kind: Role" in each)
    assert yaml.safe_load(text)["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["wiki"], "verbs": ["get"]}
    ]


def test_the_example_of_egress_loads(tmp_path: Path) -> None:
    (text,) = blocks("egress.md")
    settings = load(_written(tmp_path, text), env={"HOME": str(tmp_path)}, cwd=tmp_path, system=tmp_path / "x").settings
    assert settings.egress.allow_private[0] == "10.1.0.0/16"


def _written(folder: Path, text: str) -> Path:
    (folder / "callgate.yaml").write_text(text, "utf-8")
    return folder / "callgate.yaml"
