"""The examples of docs/workloads.md: they load, and the commands do what the page says."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from callgate.config import load
from tests.conftest import ROOT
from tests.identity.federation.estate import estate
from tests.identity.oauth.office import claims_of

PAGE = (ROOT / "docs" / "workloads.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_load(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    federation, _, id_jag = blocks("yaml")
    whole = yaml.safe_load(federation)
    whole["identity"] |= yaml.safe_load(id_jag)["identity"]
    file = tmp_path / "callgate.yaml"
    file.write_text(yaml.safe_dump(whole), "utf-8")
    identity = load(file, env={}, cwd=tmp_path, system=tmp_path / "none").settings.identity
    assert {each.issuer for agent in identity.agents.values() for each in agent.workloads} == identity.federation.keys()
    assert identity.providers["corp"].id_jag


@pytest.mark.anyio
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
async def test_the_command_gets_a_token(tmp_path: Path) -> None:
    (command,) = (block for block in blocks("sh") if "$WORKLOAD_TOKEN" in block)
    async with estate(tmp_path) as stand:
        said = await shell(command, {"GATEWAY": stand.base, "WORKLOAD_TOKEN": stand.pod()})
        assert claims_of(json.loads(said)["access_token"])["sub"] == "agent:pod"


async def shell(script: str, more: Mapping[str, str]) -> str:
    env = {"PATH": os.environ["PATH"], "NO_PROXY": "*", **more}
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", script, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err
    return out.decode().strip()
