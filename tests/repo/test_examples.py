"""Every configuration in the documents is one that callgate loads."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from callgate.config import Settings, load
from checks.project import ROOT

KEYS = {field.encode_name for field in msgspec.structs.fields(Settings)}
EXAMPLES = {
    f"{page.stem}-{number}": block
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
    if (found := yaml.safe_load(block)) and set(found) <= KEYS
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads(tmp_path: Path, name: str) -> None:
    text = EXAMPLES[name]
    if text.startswith("virtual_servers:"):  # the servers stand on other pages
        servers = set(re.findall(r'"?(\w+)/', text)) & {"docs", "git"}
        text += f"servers: {{{', '.join(f'{each}: {{command: sh}}' for each in sorted(servers))}}}\n"
    (tmp_path / "callgate.yaml").write_text(text, "utf-8")
    for file in re.findall(r"\w+_file: ([\w.-]+)[,}\n]", text):
        (tmp_path / file).touch(mode=0o600)
    for file in re.findall(r"\bpolicy/[\w.-]+\.yaml|\b[\w-]+\.yaml", text) if "policy:" in text else []:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("version: 1\ndefault: deny\nrules: []\n")
    load(tmp_path / "callgate.yaml", env={}, cwd=tmp_path, system=tmp_path / "none")


def test_the_examples_are_found() -> None:
    pages = {name.rpartition("-")[0] for name in EXAMPLES}
    assert pages >= {
        "authorization-server", "bound-tokens", "egress", "identity", "login", "secrets", "sign-in",
        "upstream-identity", "workloads",
    }  # fmt: skip
