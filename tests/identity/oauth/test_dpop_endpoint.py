"""Tokens that are bound to a key of the client, at the token endpoint, and the attacks on the way there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callgate.identity.oauth import binding
from callgate.identity.oauth.problem import TokenError
from tests.identity.provider import okp_key, rsa_key

from .keyholder import MINE, THEIRS, Holder, proof
from .office import ACCESS, EXCHANGE, Office, claims_of, error_of, office, token_in

pytestmark = pytest.mark.anyio
PROOF, GRANT = (400, "invalid_dpop_proof"), (400, "invalid_grant")
OWN = {"grant_type": "client_credentials"}


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize("key", [MINE, rsa_key("k"), okp_key("k")], ids=["EC", "RSA", "OKP"])
async def test_a_token_is_bound_to_the_key_of_the_proof(stand: Office, key: Any) -> None:
    mine = Holder(stand, key)
    reply = await mine.ask("planner")
    assert reply.json["token_type"] == "DPoP"
    assert claims_of(token_in(reply))["cnf"] == {"jkt": key.thumbprint()}
    issued = (await stand.records())[-1]
    assert issued["method"] == "oauth/token" and "jkt" in str(issued["args"]) and mine.jkt not in str(issued)
    plain = await stand.post(OWN, client="planner")
    assert plain.json["token_type"] == "Bearer" and "cnf" not in claims_of(token_in(plain))


async def test_the_metadata_says_so(stand: Office) -> None:
    document = (await stand.get("/.well-known/oauth-authorization-server")).json
    assert document["dpop_signing_alg_values_supported"] == ["ES256", "EdDSA", "RS256", "PS256"]
    assert "tls_client_certificate_bound_access_tokens" not in document
    resource = (await stand.get("/.well-known/oauth-protected-resource/mcp")).json
    assert resource["dpop_signing_alg_values_supported"] == ["ES256", "EdDSA", "RS256", "PS256"]
    assert "dpop_bound_access_tokens_required" not in resource


@pytest.mark.rule("AST-6")
@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "GET"},
        {"htu": "https://evil.example/oauth/token"},
        {"htu": "/oauth/token"},
        {"iat": 1},
        {"jti": None},
        {"header": {"typ": "JWT"}},
        {"header": {"alg": "none"}},
        {"header": {"jwk": MINE.as_dict(private=True)}},
        {"header": {"jwk": {"kty": "oct", "k": "c2VjcmV0"}}},
        {"key": THEIRS, "header": {"jwk": {**MINE.as_dict(private=False)}}},
    ],
    ids=lambda changes: "-".join([*changes, *changes.get("header", ())]),
)
async def test_attack_proofs_that_do_not_hold(stand: Office, changes: dict[str, Any]) -> None:
    made = proof("POST", f"{stand.base}/oauth/token", **changes)
    reply = await stand.post(OWN, ("DPoP", made), client="planner")
    assert error_of(reply) == PROOF
    last = (await stand.records())[-1]
    assert last["outcome"] == "refused" and made not in str(last)


@pytest.mark.rule("AST-6")
async def test_attack_a_proof_is_used_twice(stand: Office, tmp_path: Path) -> None:
    mine = Holder(stand)
    made = mine.proof(path="/oauth/token")
    assert (await mine.ask("planner", made)).status == 200
    assert error_of(await mine.ask("planner", made)) == PROOF
    assert error_of(await mine.ask("coder", made)) == PROOF
    # Not after a change of the configuration, nor after a restart: it is on the disk.
    await stand.reload(identity=stand.identity(oauth={"token_ttl": 60}))
    assert error_of(await mine.ask("planner", made)) == PROOF
    await stand.gateway.aclose()
    stand.write(listen=f"127.0.0.1:{stand.port}")
    await stand.start()
    assert error_of(await mine.ask("planner", made)) == PROOF
    assert (await mine.ask("planner")).status == 200


@pytest.mark.rule("AST-6")
async def test_attack_a_proof_is_used_by_many_at_once(stand: Office) -> None:
    mine = Holder(stand)
    made = mine.proof(path="/oauth/token")
    replies = await asyncio.gather(*(mine.ask("planner", made) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200] + [400] * 7
    assert {reply.json["error"] for reply in replies if reply.status != 200} == {"invalid_dpop_proof"}


@pytest.mark.rule("AST-6")
async def test_attack_a_stranger_fills_the_disk_with_proofs(stand: Office) -> None:
    """Only a proof that came with a request that got a token leaves a mark."""
    mine = Holder(stand)
    made = mine.proof(path="/oauth/token")
    for _ in range(5):
        refused = await stand.post({**OWN, "client_id": "planner", "client_secret": "guess"}, ("DPoP", made))
        assert refused.status == 401
    folder = stand.folder / "data" / "oauth" / "proofs"
    assert not folder.exists() or not list(folder.iterdir())
    assert (await mine.ask("planner", made)).status == 200  # nobody used it up
    assert len(list(folder.iterdir())) == 1


@pytest.mark.rule("AST-6")
async def test_attack_two_proofs(stand: Office) -> None:
    mine, theirs = Holder(stand), Holder(stand, THEIRS)
    two = [("DPoP", each.proof(path="/oauth/token")) for each in (mine, theirs)]
    assert (await stand.post(OWN, *two, client="planner")).status == 400
    joined = ("DPoP", ", ".join(value for _, value in two))
    assert error_of(await stand.post(OWN, joined, client="planner")) == PROOF


async def test_a_proof_comes_before_the_client(stand: Office) -> None:
    """RFC 9449, section 5: who holds no key learns nothing of clients."""
    made = proof("GET", f"{stand.base}/oauth/token")
    assert error_of(await stand.post(OWN, ("DPoP", made), client="nobody")) == PROOF


@pytest.mark.key("identity.oauth.dpop")
async def test_where_proofs_are_required(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": {"dpop": "required"}}) as stand:
        assert error_of(await stand.post(OWN, client="planner")) == PROOF
        assert (await Holder(stand).ask("planner")).json["token_type"] == "DPoP"
        resource = (await stand.get("/.well-known/oauth-protected-resource/mcp")).json
        assert resource["dpop_bound_access_tokens_required"] is True
        subject = {"grant_type": EXCHANGE, "subject_token": stand.user(), "subject_token_type": ACCESS}
        assert error_of(await stand.post(subject, client="planner")) == PROOF
        bound = await Holder(stand).ask("planner", **subject)
        assert claims_of(token_in(bound))["cnf"] == {"jkt": MINE.thumbprint()}


@pytest.mark.key("identity.oauth.dpop_nonce")
@pytest.mark.rule("AST-6")
async def test_where_nonces_are_wanted(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": {"dpop_nonce": True}}) as stand:
        mine = Holder(stand)
        first = await mine.ask("planner")
        assert error_of(first) == (400, "use_dpop_nonce")
        nonce = first.headers["dpop-nonce"]
        second = await mine.ask("planner", mine.proof(path="/oauth/token", nonce=nonce))
        assert second.status == 200 and second.headers["dpop-nonce"] == nonce
        assert error_of(await mine.ask("planner", mine.proof(path="/oauth/token", nonce="made up")))[1] == (
            "use_dpop_nonce"
        )
        # A proof of a key that the sender does not have earns no nonce.
        forged = proof("POST", f"{stand.base}/oauth/token", key=THEIRS, header={"jwk": MINE.as_dict(private=False)})
        refused = await stand.post(OWN, ("DPoP", forged), client="planner")
        assert error_of(refused) == PROOF and "dpop-nonce" not in refused.headers
    async with office(tmp_path) as stand:
        assert "dpop-nonce" not in (await Holder(stand).ask("planner")).headers


# Exchange


async def exchange(holder: Holder | None, stand: Office, client: str, subject: str, **fields: str) -> Any:
    form = {"grant_type": EXCHANGE, "subject_token": subject, "subject_token_type": ACCESS, **fields}
    return await (stand.post(form, client=client) if holder is None else holder.ask(client, **form))


@pytest.mark.rule("DEL-2", "AST-6")
async def test_a_bound_token_is_exchanged_for_one_of_the_next_agents_own(stand: Office) -> None:
    planner, coder = Holder(stand, MINE), Holder(stand, THEIRS)
    parent = token_in(await exchange(planner, stand, "planner", stand.user()))
    child = token_in(await exchange(coder, stand, "coder", parent))
    assert claims_of(child)["cnf"] == {"jkt": coder.jkt}
    assert [each["sub"] for each in claims_of(child)["delegation_chain"]] == ["agent:planner", "agent:coder"]
    assert (await coder.call(child)).status == 200
    assert (await planner.call(child)).status == 401


@pytest.mark.rule("AST-6")
async def test_attack_an_exchange_washes_the_binding_off(stand: Office) -> None:
    parent = await Holder(stand).token("planner")
    assert error_of(await exchange(None, stand, "coder", parent)) == PROOF
    foreign = stand.user(cnf={"jkt": MINE.thumbprint()})
    assert error_of(await exchange(None, stand, "planner", foreign)) == PROOF
    assert (await exchange(Holder(stand), stand, "planner", foreign)).status == 200


@pytest.mark.rule("AST-2", "DEL-2")
async def test_attack_a_stolen_bound_token_is_exchanged(stand: Office) -> None:
    """Whom the holder did not name gets nothing for it, whatever key it has."""
    stolen = await Holder(stand).token("planner")
    assert error_of(await exchange(Holder(stand, THEIRS), stand, "outsider", stolen)) == GRANT


async def test_attack_an_actor_token_of_another_key(stand: Office) -> None:
    planner, thief = Holder(stand), Holder(stand, THEIRS)
    actor = await planner.token("planner")
    more = {"actor_token": actor, "actor_token_type": ACCESS}
    assert (await exchange(planner, stand, "planner", stand.user(), **more)).status == 200
    assert error_of(await exchange(thief, stand, "planner", stand.user(), **more)) == GRANT
    assert error_of(await exchange(None, stand, "planner", stand.user(), **more)) == GRANT


async def test_introspection_and_revocation_need_no_proof_and_open_nothing(stand: Office) -> None:
    """Whoever asks is authenticated; a bound token can be asked about and ended by whom it concerns only."""
    mine = Holder(stand)
    token = await mine.token("planner")
    said = (await stand.post({"token": token}, path="/oauth/introspect", client="planner")).json
    assert (said["active"], said["token_type"], said["cnf"]) == (True, "DPoP", {"jkt": mine.jkt})
    assert (await stand.post({"token": token}, path="/oauth/introspect", client="outsider")).json == {"active": False}
    # Now that it was looked at it still opens nothing without its proof.
    assert (await stand.call_with(token)).status == 401
    assert (await mine.call(token)).status == 200
    await stand.post({"token": token}, path="/oauth/revoke", client="planner")
    assert (await mine.call(token)).status == 401


# What other grants use


@pytest.mark.rule("AST-7")
async def test_attack_a_refresh_token_with_another_key_or_none() -> None:
    held = {"jkt": MINE.thumbprint()}
    binding.check_refresh(held, {"jkt": MINE.thumbprint()})
    binding.check_refresh({}, {"jkt": MINE.thumbprint()})
    for wrong in ({}, {"jkt": THEIRS.thumbprint()}, {"x5t#S256": MINE.thumbprint()}):
        with pytest.raises(TokenError, match="invalid_grant"):
            binding.check_refresh(held, wrong)


async def test_attack_a_code_with_another_key_or_none() -> None:
    jkt = binding.read_dpop_jkt(MINE.thumbprint())
    binding.check_code(jkt, {"jkt": MINE.thumbprint()})
    binding.check_code(binding.read_dpop_jkt(None), {})
    for wrong in ({}, {"jkt": THEIRS.thumbprint()}):
        with pytest.raises(TokenError, match="invalid_grant"):
            binding.check_code(jkt, wrong)
    for none in ("", "x", "x" * 44, "é" * 43):
        with pytest.raises(TokenError, match="invalid_request"):
            binding.read_dpop_jkt(none)
