"""The commands of docs/identity.md, run as they stand there; its example is a configuration that loads."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from callgate.config import load
from tests.conftest import ROOT
from tests.identity.oauth.office import Office, claims_of, secret_of

PAGE = (ROOT / "docs" / "identity.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_loads(tmp_path: Path) -> None:
    file = tmp_path / "callgate.yaml"
    file.write_text(next(block for block in blocks("yaml") if "agents:" in block), "utf-8")
    settings = load(file, env={}, cwd=tmp_path, system=tmp_path / "none").settings
    assert settings.identity.agents["planner"].may_delegate_to == ("coder",)
    assert settings.identity.oauth is not None and settings.identity.oauth.token_ttl == 300


@pytest.mark.anyio
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
async def test_the_commands_do_what_the_page_says(stand: Office) -> None:
    own, delegated = (block for block in blocks("sh") if "curl" in block)
    metadata, token = [
        json.loads(line) for line in (await shell(stand, own.replace('server"\n', 'server"; echo\n'))).split("\n")
    ]
    assert metadata["issuer"] == stand.base
    assert claims_of(token["access_token"])["aud"] == f"{stand.base}/mcp"
    claims = claims_of(json.loads(await shell(stand, delegated))["access_token"])
    assert [each["sub"] for each in claims["delegation_chain"]] == ["agent:planner", "agent:coder"]
    assert claims["sub"].endswith("#alice") and claims["scope"] == "read"


async def shell(stand: Office, script: str) -> str:
    """What a script writes. ``curl -u`` sends what it is given, so the secrets are plain words here."""
    secrets = {"SECRET": secret_of("planner"), "CODER_SECRET": secret_of("coder")}
    plain = {name: value.replace("%", "%25").replace("+", "%2B") for name, value in secrets.items()}
    env = {"PATH": os.environ["PATH"], "GATEWAY": stand.base, "USER_TOKEN": stand.user(), "NO_PROXY": "*", **plain}
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", script, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err
    return out.decode().strip()
