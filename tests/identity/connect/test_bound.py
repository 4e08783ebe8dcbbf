"""Tokens that are bound to a key (DPoP): proofs at the issuer and at the server, and the nonces of both."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from callgate.errors import UpstreamError
from callgate.identity.upstream.proof import Prover
from tests.identity.connect.scene import ALICE, BOB, Scene, scene
from tests.servers.authority import Authority
from tests.servers.raw_http import Request

pytestmark = [pytest.mark.anyio, pytest.mark.key("servers.auth.dpop")]


def proof(at: Scene, n: int = -1) -> dict[str, Any]:
    """The claims of a proof that the server got."""
    found = [request.headers["dpop"] for request in at.authority.mcp.requests if "dpop" in request.headers]
    part = found[n].split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def test_each_request_has_a_fresh_proof(tmp_path: Path) -> None:
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        for _ in range(3):
            assert (await at.call()).status == 200
        proofs = [request.headers["dpop"] for request in at.authority.mcp.requests if "dpop" in request.headers]
        assert len(set(proofs)) == 3
        request = at.authority.mcp.requests[-1]
        assert request.headers["authorization"].startswith("DPoP ")
        assert proof(at)["htu"] == at.authority.url and proof(at)["htm"] == "POST"
        about = at.authority.tokens[at.authority.shown[-1]]
        assert at.authority.asked[-1]["dpop_jkt"] == about["jkt"]


async def test_each_user_has_a_key_of_their_own(tmp_path: Path) -> None:
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        await at.connect(BOB)
        await at.call()
        await at.call(BOB)
        assert len({about["jkt"] for about in at.authority.tokens.values()}) == 2


async def test_the_key_outlives_the_process_and_binds_refreshed_tokens(tmp_path: Path) -> None:
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        other = Scene(tmp_path, at.authority, at.clock, dpop=True)
        at.clock.now += 3600
        assert (await other.call()).status == 200
        assert at.authority.forms[-1]["grant_type"] == "refresh_token" and at.authority.forms[-1]["dpop"]
        assert len({about["jkt"] for about in at.authority.tokens.values()}) == 1
        assert (await at.call()).status == 200
        await other.aclose()


async def test_nonces_of_issuer_and_server_are_followed_and_remembered(tmp_path: Path) -> None:
    authority = Authority(as_nonce="as-1", rs_nonce="rs-1")
    async with scene(tmp_path, authority, dpop=True) as at:
        await at.connect()
        assert len(authority.forms) == 2  # without, then with the nonce of the issuer
        assert (await at.call()).status == 200
        before = len(authority.shown)
        assert (await at.call()).status == 200
        assert len(authority.shown) == before + 1 and proof(at)["nonce"] == "rs-1"
        authority.rs_nonce = "rs-2"
        assert (await at.call()).status == 200
        assert len(authority.shown) == before + 3


async def test_a_server_that_changes_its_nonce_all_the_time_is_not_followed_for_ever(tmp_path: Path) -> None:
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        numbers = iter(range(100))
        proven = at.authority._proven

        def never(request: Request, url: str, token: str, nonce: str) -> str:
            at.authority.rs_nonce = f"n{next(numbers)}"
            return proven(request, url, token, at.authority.rs_nonce)

        at.authority._proven = never  # type: ignore[method-assign]
        before = len(at.authority.shown)
        assert (await at.call()).status == 401
        assert len(at.authority.shown) - before <= 4


@pytest.mark.parametrize("kind", ["Bearer", "mac"])
async def test_a_token_that_is_not_bound_is_not_used(tmp_path: Path, kind: str) -> None:
    async with scene(tmp_path, Authority(kind=kind), dpop=True) as at:
        with pytest.raises(UpstreamError, match="not bound to callgate's key"):
            await at.connect()
        await at.needs()


async def test_a_bound_token_is_not_used_without_its_key(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(kind="DPoP")) as at:
        with pytest.raises(UpstreamError, match="no bearer token"):
            await at.connect()


async def test_the_proof_is_for_the_method_and_the_url_without_its_query() -> None:
    prover = Prover()
    for method, url in (("GET", "https://x.example/mcp?a=b#c"), ("DELETE", "https://x.example/mcp")):
        part = prover.proof(method, url, "token").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        assert (claims["htm"], claims["htu"]) == (method, "https://x.example/mcp")
        assert claims["ath"] == base64.urlsafe_b64encode(hashlib.sha256(b"token").digest()).rstrip(b"=").decode()
    header = json.loads(base64.urlsafe_b64decode(prover.proof("GET", "https://x/").split(".")[0] + "=="))
    assert (header["typ"], header["alg"]) == ("dpop+jwt", "ES256")
    assert "d" not in header["jwk"]


async def test_a_key_that_was_lost_is_a_grant_that_was_lost(tmp_path: Path) -> None:
    """A grant that is bound is not used where binding was turned off, nor the other way round."""
    async with scene(tmp_path, dpop=True) as at:
        await at.connect()
        plain = Scene(tmp_path, at.authority, at.clock)
        await plain.needs(ALICE)
        await plain.aclose()
