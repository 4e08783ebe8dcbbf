"""The parts of the token service that need no gateway: bounds, marks, settings."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from callgate.config import Agent, Identity, OAuth, load
from callgate.errors import ConfigError
from callgate.identity import Held, Surroundings, Throttle, TokenError
from callgate.identity.oauth.issuing import TokenIssuer
from callgate.identity.oauth.marks import Revocations, Seen
from tests.identity.oauth.office import ASSERTION, office, token_in
from tests.identity.provider import Clock, Provider, ec_key, fetch, sign, until


def test_attempts_are_bounded_and_so_is_their_memory() -> None:
    clock = Clock()
    throttle = Throttle(clock, size=20)
    for _ in range(10):
        throttle.failed("planner", "a")
    with pytest.raises(TokenError, match="Too many"):
        throttle.admit("planner", "a")
    throttle.admit("planner", "b")
    throttle.admit("coder", "a")
    for number in range(40):
        throttle.failed(f"client {number}", "a")
    with pytest.raises(TokenError, match="Too many"):
        throttle.admit("coder", "a")
    assert len(throttle) <= 20
    clock.now += 61
    throttle.admit("planner", "a")


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # everybody who has an IPv6 address has all of these
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("::ffff:192.0.2.1", "192.0.2.1", True), ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ("fe80::1%eth0", "fe80::2%eth0", True),
    ("person https://idp#a:b", "person https://idp#a:c", False), ("", "x", False),
])  # fmt: skip
def test_who_has_many_addresses_has_not_many_attempts(one: str, other: str, same: bool) -> None:
    throttle = Throttle(Clock(), requests=5)
    for _ in range(5):
        throttle.admit("", one)
    with contextlib.nullcontext() if not same else pytest.raises(TokenError, match="Too many"):
        throttle.admit("", other)


def test_an_assertion_counts_once_for_all_processes(tmp_path: Path) -> None:
    clock = Clock()
    one, other = Seen(tmp_path / "seen", clock), Seen(tmp_path / "seen", clock)
    assert one.take("a", "x", clock.now + 100) and not one.take("a", "x", clock.now + 100)
    assert not other.take("a", "x", clock.now + 100) and other.take("a", "y", clock.now + 100)
    clock.now += 101
    assert other.take("a", "z", clock.now + 100) and len(list((tmp_path / "seen").iterdir())) == 1


@pytest.mark.anyio
@pytest.mark.rule("TOK-2")
async def test_a_revocation_reaches_other_processes_and_outlives_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    one, other = Revocations(tmp_path, clock), Revocations(tmp_path, clock)
    before = other.poll()
    one.add("jti:a", clock.now + 300)
    one.add("sub:agent:coder", clock.now + 300)
    clock.now += 1
    await until(lambda: other.poll() != before)
    for each in (one, other, Revocations(tmp_path, clock)):
        each.poll()  # the first look is at once
        assert each.covers(["b", "a"], [], 0) and not each.covers(["b"], ["agent:planner"], 0)
        assert each.covers([], ["agent:coder"], clock.now - 2) and not each.covers([], ["agent:coder"], clock.now)


def hold(kind: str, shape: type[Any]) -> Held[Any]:
    raise AssertionError("nothing is held here")


async def follow(reference: str) -> str:
    raise AssertionError("there are no references here")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "delegate": ({"may_delegate_to": ("codr",)}, "Did you mean `coder`"),
    "issuer": ({"acts_for": ("https://nobody",)}, "not there"),
    "pem": ({"public_key": "x"}, "PEM"),
    "two": ({"secret_sha256": "0" * 64, "jwks_uri": "https://a"}, "more than one way"),
}


@pytest.mark.parametrize(("changes", "says"), BROKEN.values(), ids=BROKEN)
def test_settings_that_cannot_be_meant(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    identity = Identity(oauth=OAuth(), agents={"coder": Agent(), "planner": Agent(**changes)})
    with pytest.raises(ConfigError) as caught:
        TokenIssuer(identity, Surroundings(lambda: "", tmp_path, fetch, fetch, hold, follow))
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.key("public_url", "identity.oauth.issuer", "identity.agents.jwks_uri", "identity.oauth.token_ttl")
def test_settings_are_checked_where_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "callgate.yaml"
    for settings, says in (
        ({"public_url": "mcp.example.org"}, "`public_url` must begin with"),
        ({"identity": {"oauth": {"issuer": "x"}}}, "`issuer` must begin with"),
        ({"identity": {"agents": {"a": {"jwks_uri": "x"}}}}, "`jwks_uri` must begin with"),
        ({"identity": {"agents": {"a b": {}}}}, "cannot be the name of an agent"),
        ({"identity": {"agents": {"a": {"scopes": ['read"', "write"]}}}}, "cannot be a scope"),
        ({"identity": {"oauth": {"token_ttl": "2h"}}}, "token_ttl"),
        ({"identity": {"agents": {"a": {"secret_sha256": "secret"}}}}, "secret_sha256"),
    ):
        file.write_text(json.dumps(settings))
        with pytest.raises(ConfigError) as caught:
            load(file, env={}, cwd=tmp_path, system=tmp_path / "none")
        assert says in str(caught.value.message) + str([each.message for each in caught.value.problems])


@pytest.mark.anyio
@pytest.mark.key("identity.agents.jwks_uri")
async def test_an_agent_that_publishes_its_keys(tmp_path: Path) -> None:
    async with Provider(Clock(), ec_key("its key")) as publisher, office(tmp_path) as stand:
        more = {"robot": {"jwks_uri": publisher.jwks_uri, "roles": ["coder"]}}
        identity = stand.identity()
        identity["agents"] |= more
        await stand.reload(identity=identity)
        claims = publisher.claims(iss="robot", sub="robot", aud=stand.base, exp=int(publisher.clock()) + 60, jti="1")
        header = {"alg": "ES256", "kid": "its key"}
        form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION}
        reply = await stand.post({**form, "client_assertion": sign(ec_key("its key"), header, claims)})
        assert (await stand.call_with(token_in(reply))).status == 200
        forged = sign(ec_key("another"), header, {**claims, "jti": "2"})
        assert (await stand.post({**form, "client_assertion": forged})).status == 401
