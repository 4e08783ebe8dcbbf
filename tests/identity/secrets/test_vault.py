"""Vault and OpenBao, played by a scripted server in the words of the API documentation."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from typing import Any

import pytest

from callgate.config import Loaded, load
from callgate.errors import CallgateError, ConfigError
from callgate.identity import Secrets
from callgate.store import open_database
from tests.egress.test_proxy_and_tls import certificate
from tests.servers.raw_http import RawServer
from tests.servers.vault_http import CANARY, TOKEN, VaultServer

pytestmark = pytest.mark.anyio


def settings(folder: Path, server: RawServer, **vault: Any) -> Loaded:
    (folder / "state").mkdir(exist_ok=True)
    given = {"url": server.url.removesuffix("/mcp"), "token": "env:VAULT_TOKEN", **vault}
    lines = "".join(f"    {name}: {value}\n" for name, value in given.items() if value is not None)
    (folder / "callgate.yaml").write_text(f"data_dir: state\nsecrets:\n  vault:\n{lines}")
    return load(folder / "callgate.yaml", env={}, cwd=folder, system=folder / "none")


def secrets_of(folder: Path, server: RawServer, **vault: Any) -> Secrets:
    loaded = settings(folder, server, **vault)
    return Secrets(loaded, open_database(loaded.data_dir), env={"VAULT_TOKEN": TOKEN})


async def refused(secrets: Secrets, reference: str, match: str) -> CallgateError:
    with pytest.raises(CallgateError, match=match) as caught:
        await secrets.resolve(reference, True)
    said = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert TOKEN not in said and CANARY not in said
    return caught.value


@pytest.mark.key("secrets.vault.url", "secrets.vault.token")
async def test_a_value_is_read_with_the_token(tmp_path: Path) -> None:
    async with RawServer(VaultServer()) as server:
        secrets = secrets_of(tmp_path, server)
        assert await secrets.resolve("vault:apps/docs#token", True) == CANARY
        asked = server.requests[0]
        assert (asked.method, asked.target) == ("GET", "/v1/secret/data/apps/docs")
        assert (asked.headers["x-vault-token"], asked.headers["x-vault-request"]) == (TOKEN, "true")
        assert "x-vault-namespace" not in asked.headers
        await secrets.aclose()


@pytest.mark.key("secrets.vault.mount", "secrets.vault.namespace")
async def test_another_mount_in_a_namespace(tmp_path: Path) -> None:
    async with RawServer(VaultServer("team/kv")) as server:
        secrets = secrets_of(tmp_path, server, mount="team/kv", namespace="ns1")
        assert await secrets.resolve("vault:apps/docs#token", True) == CANARY
        assert server.requests[0].headers["x-vault-namespace"] == "ns1"
        await secrets.aclose()


@pytest.mark.key("secrets.vault.role", "secrets.vault.auth_mount", "secrets.vault.jwt_file")
async def test_a_pod_signs_in_once_and_again_when_its_token_is_revoked(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("the-service-account\n")
    vault = VaultServer(auth_mount="k8s/one")
    async with RawServer(vault) as server:
        secrets = secrets_of(tmp_path, server, token=None, role="callgate", auth_mount="k8s/one", jwt_file="jwt")
        for _ in range(3):
            assert await secrets.resolve("vault:apps/docs#token", True) == CANARY
        assert len(vault.logins) == 1
        vault.tokens.clear()
        assert await secrets.resolve("vault:apps/docs#token", True) == CANARY
        assert len(vault.logins) == 2
        (tmp_path / "jwt").write_text("somebody-else")
        vault.tokens.clear()
        await refused(secrets, "vault:apps/docs#token", "role `callgate` is refused")
        (tmp_path / "jwt").unlink()
        await refused(secrets, "vault:apps/docs#token", "jwt cannot be read")
        await secrets.aclose()


@pytest.mark.key("secrets.vault.cache")
async def test_a_start_asks_again_and_further_links_use_what_is_known(tmp_path: Path) -> None:
    vault = VaultServer()
    async with RawServer(vault) as server:
        secrets = secrets_of(tmp_path, server, cache="1h")
        assert await secrets.resolve("vault:apps/docs#token", True) == CANARY
        vault.data["apps/docs"] = {"token": "rotated-value"}
        assert await secrets.resolve("vault:apps/docs#token", False) == CANARY
        assert len(server.requests) == 1
        assert await secrets.resolve("vault:apps/docs#token", True) == "rotated-value"
        assert await secrets.resolve("vault:apps/docs#token", False) == "rotated-value"
        await secrets.aclose()
        never = secrets_of(tmp_path, server, cache=0)
        await never.resolve("vault:apps/docs#token", False)
        await never.resolve("vault:apps/docs#token", False)
        assert len(server.requests) == 4
        await never.aclose()


@pytest.mark.rule("SEC-3")
async def test_what_was_taken_away_is_known_no_longer(tmp_path: Path) -> None:
    vault = VaultServer()
    async with RawServer(vault) as server:
        secrets = secrets_of(tmp_path, server, cache="1h")
        await secrets.resolve("vault:apps/docs#token", True)
        del vault.data["apps/docs"]
        await refused(secrets, "vault:apps/docs#token", "nothing there")
        with pytest.raises(ConfigError, match="nothing there"):
            await secrets.resolve("vault:apps/docs#token", False)
        await secrets.aclose()


async def test_many_that_ask_at_once_ask_once(tmp_path: Path) -> None:
    async with RawServer(VaultServer()) as server:
        secrets = secrets_of(tmp_path, server)
        found = await asyncio.gather(*(secrets.resolve("vault:apps/docs#token", True) for _ in range(20)))
        assert set(found) == {CANARY}
        assert len(server.requests) == 1
        await secrets.aclose()


@pytest.mark.key("secrets.vault.timeout")
async def test_a_vault_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    vault = VaultServer()
    vault.silent = True
    async with RawServer(vault) as server:
        secrets = secrets_of(tmp_path, server, timeout="200ms")
        await refused(secrets, "vault:apps/docs#token", "needs `vault:apps/docs`, and the vault")
        await secrets.aclose()


async def test_a_vault_that_is_away(tmp_path: Path) -> None:
    async with RawServer(VaultServer()) as server:
        secrets = secrets_of(tmp_path, server)
    await refused(secrets, "vault:apps/docs#token", "the vault could not be reached")
    await secrets.aclose()


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (503, {"errors": ["Vault is sealed"]}, "is sealed or not ready"),
        (500, {"errors": [CANARY, TOKEN]}, "cannot answer"),
        (403, {"errors": [CANARY]}, "does not let callgate read that"),
        (307, {}, "cannot answer"),
        (404, {"data": {"data": None, "metadata": {"deletion_time": "now", "version": 2}}}, "has nothing there"),
        (200, {"data": {"token": CANARY}}, "not that of a key/value engine, version 2"),
        (200, [CANARY], "not that of a key/value engine, version 2"),
        (200, {"data": {"data": {"token": ""}}}, "no text in the field `token`"),
        (200, {"data": {"data": {"token": {"a": CANARY}}}}, "no text in the field `token`"),
        (200, {"data": {"data": {"other": CANARY}}}, "no field `token`"),
    ],
)
async def test_answers_that_are_no_value_are_told_without_repeating_them(
    tmp_path: Path, status: int, body: Any, match: str
) -> None:
    vault = VaultServer()
    vault.answer = (status, body)
    async with RawServer(vault) as server:
        secrets = secrets_of(tmp_path, server)
        await refused(secrets, "vault:apps/docs#token", match)
        assert len(server.requests) == 1  # no redirect was followed with the token
        await secrets.aclose()


@pytest.mark.parametrize(
    "path",
    ["", "#token", "apps/docs", "apps/docs#", "../../sys/seal#x", "apps/../../x#y", "./a#b", "a//b#c", "a b#c",
     "a\r\nX: y#c", "a#b#c", "/a#b"],
)  # fmt: skip
async def test_paths_that_lead_elsewhere_are_never_asked_for(tmp_path: Path, path: str) -> None:
    async with RawServer(VaultServer()) as server:
        secrets = secrets_of(tmp_path, server)
        await refused(secrets, f"vault:{path}", "is not of the form")
        assert server.requests == []
        await secrets.aclose()


async def test_signs_of_a_path_stay_in_the_path(tmp_path: Path) -> None:
    vault = VaultServer()
    vault.data["a%3Fversion%3D1/%25x"] = {"f": "found it"}
    async with RawServer(vault) as server:
        secrets = secrets_of(tmp_path, server)
        assert await secrets.resolve("vault:a?version=1/%x#f", True) == "found it"
        await secrets.aclose()


async def test_a_token_with_line_ends_is_not_sent(tmp_path: Path) -> None:
    async with RawServer(VaultServer()) as server:
        loaded = settings(tmp_path, server)
        secrets = Secrets(loaded, open_database(loaded.data_dir), env={"VAULT_TOKEN": f"{TOKEN}\r\nx: y"})
        await refused(secrets, "vault:apps/docs#token", "`x-vault-token` cannot be sent")
        assert server.requests == []
        await secrets.aclose()


async def test_the_token_may_stand_in_the_store(tmp_path: Path) -> None:
    async with RawServer(VaultServer()) as server:
        secrets = secrets_of(tmp_path, server, token="secret:vault-token")
        await refused(secrets, "vault:apps/docs#token", "needs the secret `vault-token`, which is not set")
        secrets.store.set("vault-token", TOKEN)
        assert await secrets.resolve("vault:apps/docs#token", True) == CANARY
        await secrets.aclose()


@pytest.mark.key("secrets.vault.ca_file")
async def test_a_vault_with_a_certificate_of_ones_own_authority(tmp_path: Path) -> None:
    context, authority = certificate(tmp_path)
    async with RawServer(VaultServer(), context) as server:
        trusting = secrets_of(tmp_path, server, ca_file=authority)
        assert await trusting.resolve("vault:apps/docs#token", True) == CANARY
        await trusting.aclose()
        doubting = secrets_of(tmp_path, server)
        await refused(doubting, "vault:apps/docs#token", "its certificate is not trusted")
        await doubting.aclose()


async def test_a_file_of_authorities_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    async with RawServer(VaultServer()) as server:
        with pytest.raises(ConfigError, match=r"ca\.pem"):
            settings(tmp_path, server, ca_file="ca.pem")


@pytest.mark.parametrize(
    ("vault", "match"),
    [
        ({"token": TOKEN}, "instead of a reference"),
        ({"token": None}, "either `token` or `role`"),
        ({"role": "callgate"}, "either `token` or `role`"),
        ({"url": "vault:8200"}, "must begin with"),
    ],
)
async def test_settings_of_a_vault_that_do_not_hold(tmp_path: Path, vault: dict[str, Any], match: str) -> None:
    async with RawServer(VaultServer()) as server:
        with pytest.raises(ConfigError, match=match):
            settings(tmp_path, server, **vault)


def test_a_reference_to_no_vault_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("servers: {s: {command: cat, env: {T: 'vault:a#b'}}}\n")
    with pytest.raises(ConfigError, match="there is no vault"):
        load(tmp_path / "c.yaml", env={"HOME": str(tmp_path)}, cwd=tmp_path, system=tmp_path / "none")
