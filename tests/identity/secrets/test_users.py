"""Who uses which secret, and that a new value counts wherever it is used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callgate.config import load, places
from callgate.identity import Secrets, servers_using, users
from callgate.store import open_database
from tests.identity.signin.idp import Lobby, lobby

pytestmark = pytest.mark.anyio

TEXT = """
data_dir: state
servers:
  docs:
    url: https://docs.example/mcp
    headers: {Authorization: "secret:docs", X-Other: "secret:shared"}
  lake:
    url: https://lake.example/mcp
    auth: {type: client_credentials, token_endpoint: "https://idp.example/token", issuer: "https://idp.example",
           client_id: us, client_secret: "secret:lake"}
  mail: {command: cat, env: {A: "secret:shared", B: "secret:shared", C: plain}}
identity:
  oauth: {}
  providers:
    corp: {issuer: "https://corp.example", client_id: us, client_secret: "secret:corp"}
secrets:
  vault: {url: "https://vault.example", token: "secret:vault"}
  onepassword: {url: "https://connect.example", token: "secret:connect"}
"""


def test_every_place_of_a_reference_counts(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "callgate.yaml").write_text(TEXT)
    settings = load(tmp_path / "callgate.yaml", env={}, cwd=tmp_path, system=tmp_path / "none").settings
    assert users(settings) == {
        "docs": ["docs"],
        "shared": ["docs", "mail"],
        "lake": ["lake"],
        "corp": ["identity.providers.corp.client_secret"],
        "vault": ["secrets.vault.token"],
        "connect": ["secrets.onepassword.token"],
    }
    assert servers_using(settings) == {"docs": ["docs"], "shared": ["docs", "mail"], "lake": ["lake"]}
    assert len(list(places(settings))) == 9


def store(stand: Lobby, value: str) -> None:
    Secrets(stand.read(), open_database(stand.folder / "data"), env={}).store.set("corp", value)


@pytest.mark.rule("SEC-3")
async def test_a_new_secret_for_an_identity_provider_counts_from_the_next_sign_in(tmp_path: Path) -> None:
    async with lobby(tmp_path, client_auth="client_secret_post", client_secret="secret:corp") as stand:
        for value in ("the first value", "the second value"):
            await asyncio.to_thread(store, stand, value)
            await stand.sign_in()
            form, _ = stand.idp.posted[-1]
            assert form["client_secret"] == value
