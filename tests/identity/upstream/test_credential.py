"""Which token may be exchanged, and what happens around the wait for one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from callgate.config import Provider, Server, UpstreamAuth
from callgate.egress import Guard
from callgate.errors import ConfigError, Denied
from callgate.identity.upstream.credential import Credential, Place
from callgate.identity.upstream.credentials import Circle, Credentials, Keys
from callgate.types import Occasion, Principal
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = pytest.mark.anyio
IDP = "https://idp.example"


class House:
    """What a credential asks of its house."""

    issuer = "https://us"
    guard = Guard()

    async def sign(self, claims: Mapping[str, Any]) -> str:
        return "a.b.c"

    def presented(self, who: Principal) -> str | None:
        return "the-token" if who.proof else None

    def provider(self, name: str) -> Provider:
        raise AssertionError(name)

    async def id_token(self, user: str, provider: str) -> str | None:
        return None


class Issuer:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        self.requests.append(request)
        peer.json({"access_token": f"t{len(self.requests)}", "token_type": "bearer", "expires_in": 600})


def credential(server: RawServer, **more: Any) -> Credential:
    fields: dict[str, Any] = {
        "type": "exchange",
        "token_endpoint": server.url,
        "client_id": "us",
        "client_secret": "secret:lake",
        "subject_token": "caller",
        "subject_issuers": (IDP,),
        **more,
    }

    async def resolve(reference: str) -> str:
        if reference == "secret:gone":
            raise ConfigError("there is no secret `gone`")
        return "hush"

    return Credential(Place("https://lake.example/mcp", UpstreamAuth(**fields), resolve), House())


def alice(**more: Any) -> Principal:
    return Principal(
        **{"subject": "alice", "key": "k", "issuer": IDP, "via": "jwt", "claims": {"iss": IDP}, "proof": b"1", **more}
    )


@pytest.mark.rule("OC-8", "RS-8")
@pytest.mark.parametrize(
    "who",
    [
        alice(claims={"iss": "https://us"}),  # our own token about a user of theirs
        alice(claims={}),
        alice(via="key", issuer=""),
        alice(via="anonymous"),
        alice(proof=b""),
    ],
)
async def test_only_tokens_of_the_named_issuers_leave(who: Principal) -> None:
    issuer = Issuer()
    async with RawServer(issuer) as server:
        made = credential(server)
        with pytest.raises(Denied) as refusal:
            await made.lines(Occasion(who, 1, deadline=math.inf))
        assert "the-token" not in f"{refusal.value.message} {refusal.value.hint}"
        assert not issuer.requests
        assert await made.lines(Occasion(alice(proof=b"2"), 1, deadline=math.inf)) == b"authorization: Bearer t1\r\n"
        await made.aclose()


async def test_a_secret_that_is_gone_is_said_by_its_name() -> None:
    async with RawServer(Issuer()) as server:
        made = credential(server, client_secret="secret:gone")
        with pytest.raises(ConfigError, match="there is no secret `gone`"):
            await made.lines(Occasion(None, 0, deadline=math.inf))
        await made.aclose()


@pytest.mark.parametrize(("url", "warned"), [("http://10.0.0.1/mcp", True), ("http://127.0.0.1:1/mcp", False)])
def test_tokens_in_the_clear_are_warned_of(
    url: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Credentials(Circle(lambda: "https://us", Keys(tmp_path, None)))
    assert made.of(Server(url=url, auth=UpstreamAuth(type="assertion")), unused) is not None
    assert ("without encryption" in caplog.text) == warned


async def test_a_url_that_cannot_be_used_fails_calls_and_not_the_start(tmp_path: Path) -> None:
    made = Credentials(Circle(lambda: "https://us", Keys(tmp_path, None)))
    found = made.of(Server(url="https://me:hush@lake/mcp", auth=UpstreamAuth(type="assertion")), unused)
    assert found is not None
    with pytest.raises(ConfigError, match="must not contain credentials"):
        await found.lines(Occasion(None, 0, deadline=math.inf))


async def unused(reference: str) -> str:
    raise AssertionError(reference)


async def test_a_claim_that_is_missing_is_not_one_that_reads_like_it() -> None:
    async with RawServer(Issuer()) as server:
        made = credential(server, subject_token=None, subject_claim="email", subject_issuers=())
        named = alice(claims={"iss": IDP, "email": "None"})
        await made.lines(Occasion(named, 0, deadline=math.inf))
        with pytest.raises(Denied, match="claim `email`"):
            await made.lines(Occasion(alice(), 0, deadline=math.inf))
        await made.aclose()


async def test_a_users_token_is_kept_no_longer_than_the_user_is_known() -> None:
    issuer = Issuer()
    async with RawServer(issuer) as server:
        made = credential(server)
        now = asyncio.get_running_loop().time
        for _ in range(2):
            await made.lines(Occasion(alice(expires=1.0), 1, deadline=now() + 5))
        assert len(issuer.requests) == 2
        await made.aclose()
