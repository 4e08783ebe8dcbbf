"""docs/bound-tokens.md: its examples load, and its proof is one that callgate accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from callgate.config import load
from tests.conftest import ROOT

from .keyholder import Holder
from .office import Office, claims_of, token_in

pytestmark = pytest.mark.anyio
PAGE = (ROOT / "docs" / "bound-tokens.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_examples_load(tmp_path: Path) -> None:
    required, certificates = blocks("yaml")
    for number, block in enumerate((required, certificates)):
        (tmp_path / f"{number}.yaml").write_text(block, "utf-8")
    read = [load(tmp_path / f"{n}.yaml", env={}, cwd=tmp_path, system=tmp_path / "none").settings for n in (0, 1)]
    assert read[0].identity.oauth is not None and read[0].identity.oauth.dpop == "required"
    assert read[0].identity.oauth.dpop_nonce
    assert read[1].identity.client_certificates is not None
    assert read[1].identity.client_certificates.proxies == ("10.0.0.7", "10.1.0.0/16")


async def test_the_proof_of_the_page(stand: Office) -> None:
    names: dict[str, Any] = {}
    (code,) = blocks("python")
    exec(code, names)
    asked = names["proof"]("POST", f"{stand.base}/oauth/token")
    token = token_in(await stand.post({"grant_type": "client_credentials"}, ("DPoP", asked), client="planner"))
    assert claims_of(token)["cnf"] == {"jkt": names["key"].thumbprint()}
    holder = Holder(stand, names["key"])
    assert (await holder.call(token, proof=names["proof"]("POST", f"{stand.base}/mcp", token))).status == 200
