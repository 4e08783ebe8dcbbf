"""What the README says is true: its configuration loads, its commands exist, its policy's tests pass."""

from __future__ import annotations

import re
from pathlib import Path

from callgate.config import load
from callgate.policy import load_policy

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.S | re.M)


def test_the_configuration_in_the_readme_loads_and_its_policy_passes_its_own_tests(tmp_path: Path) -> None:
    block, _ = blocks("yaml")
    file = tmp_path / "callgate.yaml"
    (tmp_path / "state").mkdir()
    file.write_text(f"data_dir: ./state\n{block}", encoding="utf-8")
    loaded = load(file, env={}, cwd=tmp_path)
    assert set(loaded.settings.virtual_servers) == {"coder"}
    results = load_policy(loaded.policy).run_tests()
    assert results and all(result.passed for result in results)


def test_the_shortest_way_to_a_sign_in(tmp_path: Path) -> None:
    """It needs no `public_url` and no other setting, and the redirect URI is the one that the gateway will name."""
    _, block = blocks("yaml")
    (tmp_path / "callgate.yaml").write_text(block, encoding="utf-8")
    settings = load(tmp_path / "callgate.yaml", env={}, cwd=tmp_path, system=tmp_path / "none").settings
    assert list(settings.identity.providers) == ["work"]
    assert f"`http://{settings.listen}/oauth/callback`" in README
    section = README.partition("## Who is calling")[2].partition("\n## ")[0]
    assert re.findall(r"^callgate (\w+)", section, re.M) == ["secret", "doctor", "up", "login", "whoami"]


def test_the_first_commands_of_the_readme_are_make_demo_and_make_test() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("")[0].strip().splitlines()]
    assert commands == ["make demo", "make test"]


def test_every_callgate_command_in_the_readme_exists() -> None:
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"callgate (policy \w+|config \w+|[a-z]+)(?=[ `\n])", README))
    known = {"up", "stdio", "why", "logs", "policy", "call", "login", "whoami", "doctor", "secret"}
    named = {command for command in commands if command.split()[0] in known}
    assert {"up", "stdio", "why", "logs", "policy test", "policy explain", "login", "whoami", "doctor"} <= named
    missing = {command for command in named if f"callgate {command}" not in reference}
    assert not missing
