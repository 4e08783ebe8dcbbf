"""The whole truth of one call: the user, the planner, the coder, and what became of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.identity.oauth.office import claims_of, office

pytestmark = pytest.mark.anyio


@pytest.mark.key(
    "identity.oauth", "identity.agents.roles", "identity.agents.acts_for", "identity.agents.may_delegate_to"
)
@pytest.mark.rule("DEL-7")
async def test_user_to_planner_to_coder_to_tool(tmp_path: Path) -> None:
    async with office(tmp_path) as stand:
        planner = await stand.through("planner")
        coder = await stand.through("coder", subject=planner, scope="read")
        first, second = claims_of(planner), claims_of(coder)
        assert second["sub"] == f"{stand.idp.issuer}#alice"
        assert [each["sub"] for each in second["delegation_chain"]] == ["agent:planner", "agent:coder"]
        assert second["act"]["sub"] == "agent:coder" and second["act"]["act"]["sub"] == "agent:planner"
        assert second["txn"] == first["txn"] and second["exp"] <= first["exp"]
        assert (first["scope"], second["scope"]) == ("read write", "read")
        assert (await stand.call_with(coder)).json["result"]["content"][0]["text"] == "hello"
        intern = await stand.through("intern", subject=planner)
        assert (await stand.call_with(intern, "u__hello")).status == 200
        denied = await stand.call_with(intern, "u__delete_all")
        assert "error" in denied.json, denied
        records = await stand.records()
        calls = [each for each in records if each["method"] == "tools/call"]
        assert [each["outcome"] for each in calls] == ["ok", "ok", "denied"]
        assert calls[2]["rule"] == "no-deletes-through-interns"
        for each, last in zip(calls, ("coder", "intern", "intern"), strict=True):
            assert (each["subject"], each["issuer"], each["txn"]) == ("alice", stand.idp.issuer, first["txn"])
            assert [actor["sub"] for actor in each["chain"]] == ["agent:planner", f"agent:{last}"]
            assert [actor["roles"] for actor in each["chain"]] == [["planner"], [last]]
        issued = [each for each in records if each["method"] == "oauth/token"]
        assert [each["args"]["consent"] for each in issued] == ["operator", "agent", "agent"]
        assert issued[1]["args"]["parent_sha256"] == issued[0]["args"]["id_sha256"]
        for token in (planner, coder, intern):
            assert token not in str(records) and claims_of(token)["jti"] not in str(records)


async def test_rules_about_the_current_agent_and_the_whole_chain(tmp_path: Path) -> None:
    rules = [
        {"id": "coder-for-alice", "allow": ["*/hello"], "to": {"agents": ["agent:coder"], "subjects": ["alice"]}},
        {
            "id": "long-ways",
            "allow": ["*/delete_all"],
            "when": 'chain.size() == 2 && chain[0].subject == "agent:planner"',
        },
    ]
    async with office(tmp_path) as stand:
        await stand.reload(policy={"version": 1, "default": "deny", "rules": rules})
        planner, both, alone = (
            await stand.through("planner"),
            await stand.through("planner", "coder"),
            await stand.own("coder"),
        )
        for token, hello, delete in (
            (planner, False, False),
            (both, True, True),
            (alone, False, False),
            (stand.user(), False, False),
        ):
            assert ("result" in (await stand.call_with(token)).json) is hello
            assert ("result" in (await stand.call_with(token, "u__delete_all")).json) is delete


async def test_an_agent_that_hands_on_its_own_token_is_in_the_chain(tmp_path: Path) -> None:
    """Otherwise a rule about any agent of the chain would not see where it began."""
    async with office(tmp_path) as stand:
        registry = stand.identity()
        registry["agents"]["intern"] |= {"may_delegate_to": ["coder"], "roles": ["intern", "dev"]}
        await stand.reload(identity=registry)
        token = await stand.through("coder", subject=await stand.own("intern"))
        assert "result" in (await stand.call_with(token)).json
        assert "error" in (await stand.call_with(token, "u__delete_all")).json
        last = (await stand.records())[-1]
        assert (last["subject"], last["rule"]) == ("agent:intern", "no-deletes-through-interns")
        assert [each["sub"] for each in last["chain"]] == ["agent:intern", "agent:coder"]


async def test_a_strict_gateway_records_a_token_before_it_hands_it_out(tmp_path: Path) -> None:
    """And that one was revoked, before it says so: ``rows`` is what is on disk, with nothing waited for."""
    async with office(tmp_path, audit={"durability": "strict"}) as stand:
        token = await stand.own("planner")
        assert [each["method"] for each in stand.rows()] == ["oauth/token"]
        await stand.post({"token": token}, path="/oauth/revoke", client="planner")
        assert [each["method"] for each in stand.rows()] == ["oauth/token", "oauth/revoke"]
