"""Agents in the admin API and the commands, and revocation: what somebody holds ends at once, everywhere."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from callgate.errors import ConfigError
from callgate.identity import Revocations
from tests.fuzz.messages import dump, head
from tests.fuzz.raw import Reply
from tests.gateway.stand import Stand, Wire, keys, until
from tests.identity.oauth.office import Office, claims_of, office
from tests.identity.signin.idp import lobby
from tests.office import Done, run

pytestmark = pytest.mark.anyio

KEYS = [
    {"subject": who, "roles": [role], "sha256": hashlib.sha256(f"cg_{who}".encode()).hexdigest()}
    for who, role in (("adam", "admin"), ("aud", "auditor"), ("dev", "dev"))
]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Office]:
    async with office(tmp_path, {"keys": KEYS}) as stand:
        yield stand


async def admin(stand: Stand, path: str, who: str = "", body: Any = None, kind: str = "application/json") -> Reply:
    """Ask the admin API as the holder of a key, or as the operator."""
    place = urlsplit(stand.house.urls["admin"])
    token = f"cg_{who}" if who else (stand.folder / "data" / "operator.token").read_text().strip()
    headers = [("Host", place.netloc), ("Authorization", f"Bearer {token}")]
    content = b"" if body is None else dump(body)
    if body is not None:
        headers += [("Content-Type", kind), ("Content-Length", str(len(content)))]
    async with Wire(*await asyncio.open_connection(place.hostname, place.port, limit=2**24)) as wire:
        method = "GET" if body is None else "POST"
        wire.send(head(f"{method} /api/v1/{path} HTTP/1.1", headers) + content)
        return await wire.reply()


async def command(stand: Office, *arguments: str, who: str = "") -> Done:
    token = {"CALLGATE_TOKEN": f"cg_{who}"} if who else {}
    env = {"CALLGATE_URL": stand.base, **token}
    return await asyncio.to_thread(run, *arguments, folder=stand.folder, env=env)


async def status(stand: Office, token: str) -> int:
    return (await stand.call_with(token)).status


async def test_agents_are_listed_with_what_is_known_of_them(stand: Office) -> None:
    before = (await admin(stand, "agents/planner")).json
    assert before["last_token"] == ""
    await stand.own("planner")
    listed = (await admin(stand, "agents", "aud")).json["agents"]
    assert [each["name"] for each in listed] == ["planner", "coder", "intern", "tester", "outsider"]
    planner = (await admin(stand, "agents/planner")).json
    assert planner == listed[0]
    assert planner["last_token"].startswith(time.strftime("%Y-%m-%dT", time.gmtime()))
    assert (planner["subject"], planner["owner"], planner["proofs"]) == ("agent:planner", "platform", ["secret"])
    assert planner["may_delegate_to"] == ["coder", "intern", "tester"] and planner["acts_for"] == [stand.idp.issuer]
    assert next(each for each in listed if each["name"] == "tester")["proofs"] == ["public key"]
    assert not any(word in json.dumps(listed) for word in ("sha256", "BEGIN PUBLIC KEY"))
    await stand.exchange("coder", await stand.own("planner"))
    await stand.reload(identity=stand.identity(keys=KEYS, oauth={"token_ttl": "1m"}))
    assert (await admin(stand, "agents/coder")).json["last_token"]  # a reload does not forget it


@pytest.mark.parametrize(
    ("who", "path", "body", "code"),
    [
        ("dev", "agents", None, 403),
        ("dev", "agents/planner", None, 403),
        ("dev", "agents/planner/revoke", {}, 403),
        ("aud", "agents/planner/revoke", {}, 403),  # an auditor reads everything and changes nothing
        ("aud", "people/revoke", {"issuer": "IDP", "subject": "alice"}, 403),
        ("adam", "agents/planer", None, 404),
        ("adam", "agents/planer/revoke", {}, 404),
        ("adam", "agents/planner/revoke", {"why": "x"}, 400),
        ("adam", "agents/planner/revoke", {"reason": "x" * 1001}, 400),
        ("adam", "people/revoke", {"issuer": "https://else.example", "subject": "alice"}, 404),
        ("adam", "people/revoke", {"issuer": "IDP", "subject": ""}, 400),
        ("adam", "people/revoke", {"issuer": "IDP"}, 400),
    ],
)
async def test_who_may_not_and_what_is_not_there(stand: Office, who: str, path: str, body: Any, code: int) -> None:
    body = body and {key: stand.idp.issuer if value == "IDP" else value for key, value in body.items()}
    token = await stand.through("planner")
    reply = await admin(stand, path, who, body)
    assert reply.status == code, reply
    if "planer" in path:
        assert "Did you mean `planner`?" in reply.body.decode()
    assert await status(stand, token) == 200
    assert not [row for row in await stand.records() if row.get("method") == "admin/revoke"]


async def test_a_form_of_another_page_revokes_nothing(stand: Office) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        assert (await admin(stand, "agents/planner/revoke", body={}, kind=kind)).status == 415


@pytest.mark.rule("TOK-2")
async def test_an_agent_loses_every_chain_that_it_is_in_and_may_come_again(stand: Office) -> None:
    own, chained, other = await stand.own("coder"), await stand.through("planner", "coder"), await stand.own("intern")
    parent = await stand.through("planner")
    reply = await admin(stand, "agents/coder/revoke", "adam", {"reason": "its host was stolen"})
    assert reply.status == 200 and reply.json["subject"] == "agent:coder", reply
    assert [await status(stand, each) for each in (own, chained, parent, other)] == [401, 401, 200, 200]
    (record,) = [row for row in await stand.records() if row.get("method") == "admin/revoke"]
    assert (record["subject"], record["outcome"]) == ("adam", "ok")
    assert record["args"]["subject"] == "agent:coder" and record["args"]["why"] == "its host was stolen"
    await asyncio.sleep(1.1)  # the next token is of another second
    assert await status(stand, await stand.own("coder")) == 200


@pytest.mark.rule("TOK-2", "SEC-8")
async def test_a_person_who_leaves_loses_everything_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    async with office(tmp_path, {"keys": KEYS}) as stand:
        direct, chained = stand.user(), await stand.through("planner")
        bob = stand.user(sub="bob")
        assert [await status(stand, each) for each in (direct, chained, bob)] == [200, 200, 200]
        reply = await admin(stand, "people/revoke", body={"issuer": stand.idp.issuer, "subject": "alice"})
        assert reply.status == 200, reply
        assert [await status(stand, each) for each in (direct, chained, bob)] == [401, 401, 200]
        await stand.reload(identity=stand.identity(keys=KEYS, oauth={"token_ttl": "1m"}))
        assert [await status(stand, each) for each in (direct, chained, bob)] == [401, 401, 200]
        await stand.gateway.aclose()
        await stand.start()
        assert [await status(stand, each) for each in (direct, chained, bob)] == [401, 401, 200]
        # Without the token service, too.
        await stand.reload(identity=stand.identity(keys=KEYS, oauth=None, agents={}))
        assert [await status(stand, each) for each in (direct, bob)] == [401, 200]
        later = stand.user(iat=int(time.time()) + 2)
        assert await status(stand, later) == 200  # who comes back signs in anew


@pytest.mark.rule("SEC-8")
async def test_a_person_who_leaves_is_signed_out_of_every_browser(tmp_path: Path) -> None:
    async with lobby(tmp_path, client_auth="none", client_secret=None) as stand:
        browsers = [await stand.sign_in(), await stand.sign_in()]
        found = [await stand.house.people.person(each.cookies(stand.base)) for each in browsers]
        assert all(each is not None for each in found)
        who = found[0]
        assert who is not None
        body = {"issuer": who.issuer, "subject": who.subject, "reason": "left the company"}
        assert (await admin(stand, "people/revoke", body=body)).status == 200
        for each in browsers:
            assert await stand.house.people.person(each.cookies(stand.base)) is None
        back = await stand.sign_in()  # whoever still has an account at the provider may come again
        assert await stand.house.people.person(back.cookies(stand.base)) is not None


@pytest.mark.rule("TOK-2")
async def test_a_revocation_without_a_token_service_reaches_other_processes(tmp_path: Path) -> None:
    async with office(tmp_path, {"keys": KEYS, "oauth": None, "agents": {}}) as stand:
        token = stand.user()
        assert await status(stand, token) == 200
        other = Revocations(tmp_path / "data" / "oauth" / "revoked", time.time)
        other.add(f"sub:{stand.idp.issuer}#alice", time.time() + 1000)

        def refused() -> bool:
            stand.house.recogniser.look()  # the sweep of the house does
            return stand.house.recogniser.known(f"Bearer {token}".encode()) is None

        await until(refused)
        assert await status(stand, token) == 401
        reply = await admin(stand, "people/revoke", body={"issuer": stand.idp.issuer, "subject": "bob"})
        assert reply.status == 200
        again = stand.user(sub="bob", iat=int(time.time()) - 5)
        assert await status(stand, again) == 401
        assert (await admin(stand, "agents", "aud")).json == {"agents": []}


async def test_nothing_is_written_on_the_event_loop(stand: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote: list[threading.Thread] = []
    add = Revocations.add

    def noted(self: Revocations, what: str, until: float) -> None:
        wrote.append(threading.current_thread())
        add(self, what, until)

    monkeypatch.setattr(Revocations, "add", noted)
    for path, body in (
        ("agents/coder/revoke", {}),
        ("people/revoke", {"issuer": stand.idp.issuer, "subject": "alice"}),
    ):
        assert (await admin(stand, path, body=body)).status == 200
    assert len(wrote) == 2 and threading.main_thread() not in wrote


async def test_a_revocation_that_cannot_be_written_counts_and_says_so(
    stand: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stand.user()
    assert await status(stand, token) == 200
    folder = stand.folder / "data" / "oauth" / "revoked"
    folder.parent.mkdir(exist_ok=True)
    if folder.is_dir():
        folder.rmdir()
    folder.write_text("in the way")
    reply = await admin(stand, "people/revoke", body={"issuer": stand.idp.issuer, "subject": "alice"})
    assert reply.status == 500 and "could not be written" in reply.body.decode()
    assert await status(stand, token) == 401
    (record,) = [row for row in await stand.records() if row.get("method") == "admin/revoke"]
    assert record["outcome"] == "failed"


async def test_the_commands(stand: Office) -> None:
    token = await stand.through("planner")
    listed = await command(stand, "agent", "ls", who="aud")
    assert listed.status == 0, listed
    assert [row[0] for row in listed.rows] == ["planner", "coder", "intern", "tester", "outsider"]
    shown = await command(stand, "agent", "show", "planner", "-o", "json")
    assert json.loads(shown.out)["owner"] == "platform"
    assert (await command(stand, "agent", "show", "planer")).status == 4
    assert (await command(stand, "agent", "revoke", "planner", who="aud")).status == 5
    assert await status(stand, token) == 200
    revoked = await command(stand, "agent", "revoke", "planner", "--reason", "tests")
    assert (revoked.status, "agent:planner" in revoked.err) == (0, True), revoked
    assert await status(stand, token) == 401
    user = stand.user()
    gone = await command(stand, "people", "revoke", stand.idp.issuer, "alice", "-o", "json", who="adam")
    assert json.loads(gone.out)["subject"] == "alice"
    assert await status(stand, user) == 401
    assert claims_of(user)["sub"] == "alice"


@pytest.mark.parametrize(
    ("identity", "says", "marked"),
    [
        (
            {"oauth": {}, "agents": {"planner": {"may_delegate_to": ["codr"]}, "coder": {}}},
            "`may_delegate_to` of the agent `planner` names `codr`, which is not there",
            "did you mean `coder`?",
        ),
        (
            {"oauth": {}, "agents": {"planner": {"may_delegate_to": ["gone"]}}},
            "`may_delegate_to` of the agent `planner` names `gone`, which is not there",
            "remove it here too",
        ),
        (
            {"oauth": {}, "agents": {"planner": {"acts_for": ["https://idp.example"]}}},
            "`acts_for` of the agent `planner` names `https://idp.example`, which is not there",
            "name one that is configured",
        ),
        ({"agents": {"planner": {}}}, "`agents` has no effect without `oauth`", "add `oauth: {}`"),
    ],
)
@pytest.mark.key("identity.agents.may_delegate_to", "identity.agents.acts_for")
def test_agents_that_do_not_agree(tmp_path: Path, identity: dict[str, Any], says: str, marked: str) -> None:
    stand = Office(tmp_path, identity=identity)
    with pytest.raises(ConfigError) as caught:
        stand.read()
    problem = (caught.value.problems or (caught.value,))[0]
    assert says in problem.message and marked in problem.hint
    assert problem.place is not None and problem.place.line == 1 and problem.place.column > 1


async def test_an_agent_that_others_name_is_not_taken_away_by_a_reload(stand: Office) -> None:
    fewer = stand.identity(keys=KEYS)
    del fewer["agents"]["intern"]
    stand.write(identity=fewer)
    with pytest.raises(ConfigError, match="names `intern`, which is not there"):
        stand.read()
    assert stand.house.settings.identity.agents.keys() >= {"intern"}


def test_agents_may_stand_alone_for_static_keys(tmp_path: Path) -> None:
    agent = keys("agent:ci", roles=["dev"])
    identity = {"keys": agent, "agents": {"ci": {"status": "suspended"}}}
    assert Office(tmp_path, identity=identity).read().settings.identity.agents["ci"].status == "suspended"
