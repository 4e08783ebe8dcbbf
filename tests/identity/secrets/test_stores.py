"""Secrets of a Kubernetes cluster, of 1Password Connect and of the keyring, each as its documentation has it."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend

from callgate.config import Loaded, load
from callgate.errors import CallgateError, ConfigError
from callgate.identity import Secrets
from callgate.store import open_database
from tests.egress.test_proxy_and_tls import certificate
from tests.servers import connect_http, kubernetes_http
from tests.servers.connect_http import ITEM, VAULT, ConnectServer
from tests.servers.kubernetes_http import KubernetesServer
from tests.servers.raw_http import RawServer

pytestmark = pytest.mark.anyio

K8S = "k8s:team/docs/token"
OP = "op://Team/Docs API/API token"
CANARIES = (kubernetes_http.CANARY, kubernetes_http.TOKEN, connect_http.CANARY, connect_http.TOKEN)


def settings(folder: Path, text: str) -> Loaded:
    (folder / "state").mkdir(exist_ok=True)
    (folder / "callgate.yaml").write_text(f"data_dir: state\n{text}")
    return load(folder / "callgate.yaml", env={}, cwd=folder, system=folder / "none")


def section(name: str, **given: Any) -> str:
    lines = "".join(f"    {key}: {value}\n" for key, value in given.items() if value is not None)
    return f"secrets:\n  {name}:\n{lines}"


def cluster(folder: Path, server: RawServer, env: dict[str, str] | None = None, **more: Any) -> Secrets:
    (folder / "token").write_text(kubernetes_http.TOKEN + "\n")
    given = {"api": server.url.removesuffix("/mcp"), "token_file": "token", **more}
    loaded = settings(folder, section("kubernetes", **given))
    return Secrets(loaded, open_database(loaded.data_dir), env=env or {})


def connect(folder: Path, server: RawServer, **more: Any) -> Secrets:
    loaded = settings(folder, section("onepassword", url=server.url.removesuffix("/mcp"), token="env:OP", **more))
    return Secrets(loaded, open_database(loaded.data_dir), env={"OP": connect_http.TOKEN})


async def refused(secrets: Secrets, reference: str, match: str) -> CallgateError:
    with pytest.raises(CallgateError, match=match) as caught:
        await secrets.resolve(reference, True)
    said = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert not any(canary in said for canary in CANARIES)
    return caught.value


@pytest.mark.key("secrets.kubernetes.api", "secrets.kubernetes.token_file")
async def test_a_secret_of_the_cluster_is_read_with_the_service_account(tmp_path: Path) -> None:
    async with RawServer(KubernetesServer()) as server:
        secrets = cluster(tmp_path, server)
        assert await secrets.resolve(K8S, True) == kubernetes_http.CANARY
        asked = server.requests[0]
        assert (asked.method, asked.target) == ("GET", "/api/v1/namespaces/team/secrets/docs")
        await secrets.aclose()


@pytest.mark.rule("SEC-3")
@pytest.mark.key("secrets.kubernetes.cache")
async def test_a_new_version_counts_from_the_next_start_on_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    kubernetes = KubernetesServer()
    async with RawServer(kubernetes) as server:
        secrets = cluster(tmp_path, server, cache="1h")
        assert await secrets.resolve(K8S, True) == kubernetes_http.CANARY
        kubernetes.data["namespaces/team/secrets/docs"]["token"] = b"rotated"
        kubernetes.version = 42
        assert await secrets.resolve(K8S, False) == kubernetes_http.CANARY
        assert len(server.requests) == 1
        assert await secrets.resolve(K8S, True) == "rotated"
        assert (await secrets._stores["k8s"].get(K8S, False)).version == "42"
        del kubernetes.data["namespaces/team/secrets/docs"]
        await refused(secrets, K8S, "there is no such secret")
        with pytest.raises(ConfigError, match="there is no such secret"):
            await secrets.resolve(K8S, False)
        await secrets.aclose()


async def test_the_token_of_the_service_account_is_read_anew(tmp_path: Path) -> None:
    kubernetes = KubernetesServer()
    async with RawServer(kubernetes) as server:
        secrets = cluster(tmp_path, server)
        await secrets.resolve(K8S, True)
        kubernetes.token = "eyJ.the-next-one"
        await refused(secrets, K8S, r"does not let callgate read that \(HTTP 401\)")
        (tmp_path / "token").write_text(kubernetes.token)
        assert await secrets.resolve(K8S, True) == kubernetes_http.CANARY
        for content in ("", "a\r\nx: y", "ü"):
            (tmp_path / "token").write_text(content, encoding="utf-8")
            await refused(secrets, K8S, "there is no token in")
        (tmp_path / "token").unlink()
        await refused(secrets, K8S, "there is no token in")
        await secrets.aclose()


@pytest.mark.key("secrets.kubernetes.ca_file")
async def test_in_a_pod_the_environment_says_where_the_api_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = certificate(tmp_path)
    async with RawServer(KubernetesServer(), context) as server:
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
        secrets = cluster(tmp_path, server, env, api=None, ca_file=authority)
        assert await secrets.resolve(K8S, True) == kubernetes_http.CANARY
        await secrets.aclose()
        monkeypatch.setattr("callgate.identity.secrets.kubernetes.CA_FILE", authority)
        secrets = cluster(tmp_path, server, env, api=None)
        assert await secrets.resolve(K8S, True) == kubernetes_http.CANARY
        await secrets.aclose()
        doubting = cluster(tmp_path, server)
        await refused(doubting, K8S, "its certificate is not trusted")
        await doubting.aclose()
    assert "secrets.kubernetes.api" in (await refused(cluster(tmp_path, server, api=None), K8S, "is in no pod")).hint


@pytest.mark.key("secrets.kubernetes.timeout")
async def test_a_cluster_that_does_not_answer_or_is_away(tmp_path: Path) -> None:
    kubernetes = KubernetesServer()
    kubernetes.silent = True
    async with RawServer(kubernetes) as server:
        secrets = cluster(tmp_path, server, timeout="200ms")
        await refused(secrets, K8S, "needs `k8s:team/docs`, and the Kubernetes API did not answer")
    await refused(secrets, K8S, "could not be reached")
    await secrets.aclose()


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (403, {"message": kubernetes_http.CANARY}, r"does not let callgate read that \(HTTP 403\)"),
        (500, {"message": kubernetes_http.TOKEN}, "cannot answer"),
        (307, {}, "cannot answer"),
        (200, {"kind": "Secret", "data": {"token": "eA=="}}, "not that of a Kubernetes API"),
        (200, {"kind": "ConfigMap", "metadata": {"resourceVersion": "1"}, "data": {"token": "x"}}, "not that of"),
        (200, [kubernetes_http.CANARY], "not that of a Kubernetes API"),
        (200, {"kind": "Secret", "metadata": {"resourceVersion": "1"}}, "there is no key `token`"),
        (200, {"kind": "Secret", "metadata": {"resourceVersion": "1"}, "data": {"token": "!"}}, "no text in the key"),
    ],
)
async def test_answers_of_a_cluster_that_are_no_value(tmp_path: Path, status: int, body: Any, match: str) -> None:
    kubernetes = KubernetesServer()
    kubernetes.answer = (status, body)
    async with RawServer(kubernetes) as server:
        secrets = cluster(tmp_path, server)
        await refused(secrets, K8S, match)
        assert len(server.requests) == 1  # no redirect was followed with the token
        await secrets.aclose()


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("k8s:team/docs/tls.key", "no text in the key"),
        ("k8s:team/docs/empty", "no key `empty`"),
        ("k8s:team/docs/none", "no key `none`"),
        ("k8s:team/none/token", "there is no such secret"),
        *((f"k8s:{path}", "is not of the form") for path in (
            "", "team/docs", "team/docs/token/x", "../docs/token", "team/../token", "team/docs?x=1/token", "t%2f/d/k",
            "Team/docs/token", "team/docs/to ken", "team/docs/token\r\nx: y", "/docs/token", "team//token",
        )),
    ],
)  # fmt: skip
async def test_references_into_a_cluster_that_lead_nowhere(tmp_path: Path, reference: str, match: str) -> None:
    async with RawServer(KubernetesServer()) as server:
        secrets = cluster(tmp_path, server)
        await refused(secrets, reference, match)
        assert server.requests == [] or "form" not in match
        await secrets.aclose()


@pytest.mark.key("secrets.onepassword.url", "secrets.onepassword.token")
@pytest.mark.parametrize(
    ("reference", "value"),
    [
        (OP, connect_http.CANARY),
        ("op://team/docs api/api TOKEN", connect_http.CANARY),
        (f"op://{VAULT}/{ITEM}/credential", connect_http.CANARY),
        (f"op://Team/{ITEM}/username", "callgate"),
        ("op://Team/Docs API/Staging/token", "of-staging"),
        ("op://Team/Docs API/sec2/token", "of-live"),
        ("op://Team/Docs API/Staging/API token", "in-a-section"),
        ("op://Team/Docs API/f2", "of-live"),
    ],
)
async def test_a_field_of_1password_is_found_by_its_names_or_ids(tmp_path: Path, reference: str, value: str) -> None:
    async with RawServer(ConnectServer()) as server:
        secrets = connect(tmp_path, server)
        assert await secrets.resolve(reference, True) == value
        assert (await secrets._stores["op"].get(reference, False)).version == 7
        assert server.requests[-1].target == f"/v1/vaults/{VAULT}/items/{ITEM}"
        await secrets.aclose()


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("op://Nobody/Docs API/API token", "there is no vault `Nobody`"),
        ("op://Empty/Docs API/API token", "there is no item `Docs API`"),
        ("op://Team/Twins/API token", "there is more than one item `Twins`"),
        (f"op://Team/{'x' * 26}/API token", "has nothing there"),
        ("op://Team/Docs API/token", "more than one such field"),
        ("op://Team/Docs API/nothing", "there is no such field"),
        ("op://Team/Docs API/Nowhere/token", "there is no such field"),
        ("op://Team/Docs API/Live/API token", "there is no such field"),
        ("op://Team/Docs API/empty", "the field is empty"),
        *((f"op:{path}", "is not of the form") for path in (
            "", "Team/Docs/x", "//Team/Docs", "//Team/Docs/a/b/c", '//Team/a" or title eq "b/c',
            "//Team/Docs/x?attribute=otp", "//../Docs/x/", "//Team/ Docs/x", "//Team/Docs\r\n/x", "///Docs/x",
        )),
    ],
)  # fmt: skip
async def test_references_to_1password_that_lead_nowhere(tmp_path: Path, reference: str, match: str) -> None:
    server_of = ConnectServer()
    server_of.items += [{**server_of.items[0], "id": each * 26, "title": "Twins"} for each in "ab"]
    async with RawServer(server_of) as server:
        secrets = connect(tmp_path, server)
        await refused(secrets, reference, match)
        assert server.requests == [] or "form" not in match
        await secrets.aclose()


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (401, {"message": connect_http.TOKEN}, r"does not let callgate read that \(HTTP 401\)"),
        (403, {"message": connect_http.CANARY}, "does not let callgate read that"),
        (503, {"message": connect_http.CANARY}, "cannot answer"),
        (302, {}, "cannot answer"),
        (200, {"id": VAULT, "name": "Team"}, "there is no vault"),
        (200, [connect_http.CANARY, {"name": "Team", "id": "../x"}], "there is no vault"),
    ],
)
async def test_answers_of_1password_that_are_no_value(tmp_path: Path, status: int, body: Any, match: str) -> None:
    played = ConnectServer()
    played.answer = (status, body)
    async with RawServer(played) as server:
        secrets = connect(tmp_path, server)
        await refused(secrets, OP, match)
        assert len(server.requests) == 1
        await secrets.aclose()
    await refused(connect(tmp_path, server), OP, "could not be reached")


@pytest.mark.rule("SEC-3")
@pytest.mark.key("secrets.onepassword.cache", "secrets.onepassword.timeout")
async def test_1password_is_asked_again_at_a_start_and_once_by_many(tmp_path: Path) -> None:
    played = ConnectServer()
    async with RawServer(played) as server:
        secrets = connect(tmp_path, server, cache="1h", timeout="2s")
        found = await asyncio.gather(*(secrets.resolve(OP, True) for _ in range(10)))
        assert set(found) == {connect_http.CANARY} and len(server.requests) == 3
        played.items[0]["fields"][1]["value"] = "rotated"
        assert await secrets.resolve(OP, False) == connect_http.CANARY
        assert await secrets.resolve(OP, True) == "rotated"
        played.token = "eyJ.another"
        await refused(secrets, OP, "HTTP 401")
        await secrets.aclose()


@pytest.mark.key("secrets.onepassword.ca_file")
async def test_a_connect_server_with_a_certificate_of_ones_own_authority(tmp_path: Path) -> None:
    context, authority = certificate(tmp_path)
    async with RawServer(ConnectServer(), context) as server:
        trusting = connect(tmp_path, server, ca_file=authority)
        assert await trusting.resolve(OP, True) == connect_http.CANARY
        await trusting.aclose()
        doubting = connect(tmp_path, server)
        await refused(doubting, OP, "its certificate is not trusted")
        await doubting.aclose()


class Memory(KeyringBackend):
    """A keyring in memory; a locked one raises errors of its own, with what it knows in them."""

    priority = 1

    def __init__(self) -> None:
        self.kept = {("docs/api", "callgate"): "of-the-keyring"}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise RuntimeError(f"locked: {self.kept}")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def memory() -> Iterator[Memory]:
    before = keyring.get_keyring()
    memory = Memory()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


def at_home(folder: Path) -> Secrets:
    loaded = settings(folder, "")
    return Secrets(loaded, open_database(loaded.data_dir), env={})


async def test_a_value_of_the_keyring(tmp_path: Path, memory: Memory) -> None:
    secrets = at_home(tmp_path)
    assert await secrets.resolve("keyring:docs/api/callgate", True) == "of-the-keyring"
    memory.kept["docs/api", "callgate"] = "rotated"
    assert await secrets.resolve("keyring:docs/api/callgate", False) == "rotated"
    assert "keyring set docs other" in (await refused(secrets, "keyring:docs/other", "has nothing there")).hint
    for reference in ("keyring:", "keyring:docs", "keyring:/x", "keyring:docs/", "keyring:a/b\n"):
        await refused(secrets, reference, "is not of the form")
    memory.locked = True
    error = await refused(secrets, "keyring:docs/api/callgate", r"the keyring cannot be read \(RuntimeError\)")
    assert "of-the-keyring" not in "".join(traceback.format_exception(error))
    await secrets.aclose()


async def test_a_keyring_that_waits_for_its_owner_holds_up_nothing_else(
    tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call to a server may ask for its secret; a locked keyring answers none of them."""
    unlocked = threading.Event()
    monkeypatch.setattr(memory, "get_password", lambda *_: unlocked.wait(10.0))
    secrets = at_home(tmp_path)
    asking = [asyncio.create_task(secrets.resolve("keyring:docs/me", True)) for _ in range(64)]
    await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(2.0):
            assert await asyncio.to_thread(lambda: "not held up") == "not held up"
    finally:
        for task in asking:
            task.cancel()
        unlocked.set()
        await asyncio.gather(*asking, return_exceptions=True)
        await secrets.aclose()


async def test_a_machine_without_a_keyring_says_so(tmp_path: Path) -> None:
    before = keyring.get_keyring()
    from keyring.backends.fail import Keyring

    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]
    try:
        error = await refused(at_home(tmp_path), "keyring:docs/me", "this machine has no keyring")
    finally:
        keyring.set_keyring(before)
    assert "secret:NAME" in error.hint


async def test_without_the_extra_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    error = await refused(at_home(tmp_path), "keyring:docs/me", "installed without keyrings")
    assert "callgate[keyring]" in error.hint


async def test_a_keyring_that_waits_for_its_owner_for_too_long(
    tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    never = threading.Event()
    monkeypatch.setattr("callgate.identity.secrets.desktop.PATIENCE", 0.05)
    monkeypatch.setattr(Memory, "get_password", lambda *_: never.wait(5) and None)
    await refused(at_home(tmp_path), "keyring:docs/me", "did not answer in time")
    never.set()


@pytest.mark.rule("SEC-1")
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("servers: {s: {command: cat, env: {T: 'op://a/b/c'}}}", "there is no 1Password Connect server"),
        ("servers: {s: {command: cat, env: {T: 'vault:a#b'}}}", "there is no vault"),
        ("servers: {s: {command: cat, env: {T: 'k8s:a/b'}}}", "not of the form `k8s:NAMESPACE/NAME/KEY`"),
        (
            "servers: {s: {url: 'http://127.0.0.1/', headers: {T: 'keyring:a'}}}",
            "not of the form `keyring:SERVICE/USER`",
        ),
        ("secrets: {onepassword: {url: 'https://c.example', token: eyJ.x}}", "instead of a reference"),
        ("secrets: {onepassword: {url: 'https://c.example', token: 'op://a/b/c'}}", "instead of a reference"),
        ("secrets: {onepassword: {url: 'http://c.example', token: 'env:T'}}", "must begin with `https://`"),
        ("secrets: {onepassword: {url: 'https://c.example', token: 'env:T', ca_file: none.pem}}", r"none\.pem"),
        ("secrets: {kubernetes: {api: 'http://10.0.0.1'}}", "must begin with `https://`"),
        ("secrets: {kubernetes: {api: 'https://10.0.0.1', ca_file: none.pem}}", r"none\.pem"),
    ],
)
def test_settings_that_do_not_hold(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        settings(tmp_path, text + "\n")


async def test_every_kind_is_followed_where_one_is(tmp_path: Path) -> None:
    loaded = settings(tmp_path, "")
    (tmp_path / "file").write_text("of the file\n")
    secrets = Secrets(loaded, open_database(loaded.data_dir), env={"NAME": "of the environment"})
    secrets.store.set("name", "of the store")
    kinds = {"env:NAME": "of the environment", "file:file": "of the file", "secret:name": "of the store"}
    assert {kind: await secrets.resolve(kind, True) for kind in kinds} == kinds
    await refused(secrets, "eyJ.a-literal", "holds a value itself")
    await refused(secrets, "op://a/b/c", "a 1Password Connect server, and none is configured")
    await secrets.aclose()
