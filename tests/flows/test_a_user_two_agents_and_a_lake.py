"""Alice asks the planner, the planner asks the coder, the coder asks the lake house: who was that?

Real parts: Alice's browser is Chromium, the office's identity provider is ``oidc-provider``, the planner is a LangGraph
graph, the coder a Pydantic AI agent, and the lake house takes only tokens of its own issuer. Only the models follow a
script.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from anyio import to_thread

from tests.clients.venvs import interpreter
from tests.flows.office import AGENTS, TESTER, Office, claims_of, office
from tests.identity.provider import sign
from tests.idp.browser import browser

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
SCRIPTS = Path(__file__).with_name("agents")
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def ask_the_planner(place: Office, token: str, next: str = "coder") -> dict[str, Any]:
    """Run the planner, who runs the other agent; what they report."""
    env = {
        **os.environ, "GATEWAY": place.base, "TOOL": "lake__count_rows",
        "AGENT": "planner", "AGENT_SECRET": AGENTS["planner"],
        "NEXT": next, "NEXT_SECRET": AGENTS[next], "NEXT_SCRIPT": str(SCRIPTS / "coder.py"),
    }  # fmt: skip
    command = [str(interpreter("agents")), str(SCRIPTS / "planner.py")]
    done = subprocess.run(command, input=f"{token}\n", capture_output=True, text=True, env=env, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


async def test_every_hop_tells_the_whole_truth(tmp_path: Path) -> None:
    async with office(tmp_path) as place:
        await to_thread.run_sync(_story, place)


def _story(place: Office) -> None:
    with browser() as window:
        signed_in = place.sign_in(window)
    report = ask_the_planner(place, signed_in["access_token"])
    tokens = [signed_in["access_token"], report["token"], report["coder"]["token"]]
    _check_tokens(place, tokens)
    assert "lake__count_rows" in report["tools"] and report["coder"]["said"] == "42", report
    _check_the_lakes_log(place, tokens)
    _check_the_record(place, tokens)
    _check_the_intern(place, signed_in["access_token"])
    _refused(place, tokens)


def _check_the_intern(place: Office, token: str) -> None:
    """The same question through an intern: it is shown nothing, and refused because of who is in the chain."""
    report = ask_the_planner(place, token, "intern")["coder"]
    assert report["said"] == "I was shown no such tool."
    assert "error" in place.call(report["token"]).json()
    last = place.records()[-1]
    assert (last["method"], last["outcome"], last["rule"]) == ("tools/call", "denied", "nothing-through-interns")
    assert [each["sub"] for each in last["chain"]] == ["client:chat", "agent:planner", "agent:intern"]


def _check_tokens(place: Office, tokens: list[str]) -> None:
    """Each names Alice, one more in the chain, never more scope, never a later end."""
    chains = [["client:chat"], ["client:chat", "agent:planner"], ["client:chat", "agent:planner", "agent:coder"]]
    found = [claims_of(each) for each in tokens]
    for claims, chain in zip(found, chains, strict=True):
        assert claims["sub"] == f"{place.idp.issuer}#alice" and claims["iss"] == place.base
        assert [each["sub"] for each in claims["delegation_chain"]] == chain
        assert (claims["aud"], claims["scope"], claims["txn"]) == (f"{place.base}/mcp", "lake:read", found[0]["txn"])
        assert claims["exp"] <= found[0]["exp"]
    assert found[2]["act"]["sub"] == "agent:coder" and found[2]["act"]["act"]["sub"] == "agent:planner"


def _check_the_lakes_log(place: Office, tokens: list[str]) -> None:
    """The lake house knows Alice and the agent; it never saw a token of callgate's callers."""
    calls = [each for each in place.lake.log if each["method"] == "tools/call"]
    assert [each["sub"] for each in calls] == [f"{place.idp.issuer}#alice"]
    assert calls[0]["iss"] == place.lake.issuer and calls[0]["act"]["sub"] == "agent:coder"
    for token in tokens:
        assert token not in str(place.lake.forms) + str(place.lake.log)


def _check_the_record(place: Office, tokens: list[str]) -> None:
    records = place.records()
    call = next(each for each in reversed(records) if each["method"] == "tools/call")
    assert (call["subject"], call["issuer"], call["outcome"], call["rule"]) == (
        "alice", place.idp.issuer, "ok", "data-people",
    )  # fmt: skip
    assert [each["sub"] for each in call["chain"]] == ["client:chat", "agent:planner", "agent:coder"]
    assert call["txn"] == claims_of(tokens[0])["txn"]
    kept = json.dumps(records)
    assert not any(token in kept for token in tokens)


def _refused(place: Office, tokens: list[str]) -> None:
    user, planner, _ = tokens

    def error(response: Any) -> tuple[int, str]:
        assert "Traceback" not in response.text
        return response.status_code, response.json()["error"]

    # A stolen intermediate token is worth nothing to an agent that nobody delegated to.
    assert error(place.exchange("outsider", planner)) == (400, "invalid_grant")
    # More scope than the parent has.
    assert error(place.exchange("coder", planner, scope="lake:read lake:write")) == (400, "invalid_scope")
    # The same assertion twice.
    now = int(time.time())
    said = {"iss": "tester", "sub": "tester", "aud": place.base, "exp": now + 60, "jti": "once"}
    form = {
        "grant_type": "client_credentials", "client_assertion_type": ASSERTION,
        "client_assertion": sign(TESTER, {"alg": "ES256"}, said),
    }  # fmt: skip
    assert place.token(form).status_code == 200
    assert error(place.token(form)) == (401, "invalid_client")
    # A chain that the intern leaves out, and one that a parameter claims.
    head, _, signature = planner.split(".")
    forged = claims_of(planner) | {"delegation_chain": claims_of(user)["delegation_chain"]}
    assert place.call(".".join((head, _encoded(forged), signature))).status_code == 401
    claimed = place.exchange("coder", planner, delegation_chain="[]", act='{"sub":"nobody"}').json()["access_token"]
    assert [each["sub"] for each in claims_of(claimed)["delegation_chain"]][-2:] == ["agent:planner", "agent:coder"]
    _confused_deputy(place)
    _expired_parent(place, user)


def _encoded(claims: dict[str, Any]) -> str:
    import base64

    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def _confused_deputy(place: Office) -> None:
    """Mallory sends Alice, who is signed in and consented, with the chat's name and an address of Mallory's."""
    with browser() as window:
        place.sign_in(window)
        for there in (
            "http://127.0.0.1/answer/../stolen",
            "http://mallory.example/answer",
            "http://127.0.0.1@mallory.example/answer",
        ):
            url, _ = place.authorization(redirect_uri=there)
            window.open(url)
            assert urlsplit(window.url).netloc == urlsplit(place.base).netloc and "code=" not in window.url
            assert not window.has("form button.main"), window.text


def _expired_parent(place: Office, user: str) -> None:
    """The gateway is told to make tokens that live for a second."""
    place.settings["identity"]["oauth"]["token_ttl"] = "1s"
    place.write()
    deadline = time.monotonic() + 20
    while True:
        short = place.exchange("planner", user).json()["access_token"]
        claims = claims_of(short)
        if claims["exp"] - claims["iat"] <= 1:
            break
        assert time.monotonic() < deadline, "the new setting was not taken over"
        time.sleep(0.2)
    time.sleep(2.1)
    answer = place.exchange("coder", short)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert place.call(short).status_code == 401
