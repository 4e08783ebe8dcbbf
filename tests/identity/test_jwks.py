"""The keys of issuers over time: rotation, outages, and how often the provider is asked (TOK-2, TOK-4)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.util import int_to_base64

from callgate.config import Identity, Issuer
from callgate.identity import Recogniser, Refused, jwks
from callgate.identity.jwks import KeySource, read_keys

from .provider import AUDIENCE, Clock, Make, Provider, ec_key, eventually, fetch, okp_key, public, rsa_key, until

pytestmark = pytest.mark.anyio

SOON = 0.02  # a jwks_ttl that passes while a test waits


async def holds(who: Recogniser, authorization: bytes) -> bool:
    try:
        await who.recognise(authorization)
    except Refused:
        return False
    return True


@pytest.mark.rule("TOK-4")
async def test_keys_are_fetched_once_for_many_tokens(make: Make, idp: Provider) -> None:
    who = make()
    for name in "abcdef":
        assert await holds(who, idp.bearer(ec_key("first"), sub=name))
    assert idp.requests == 1


@pytest.mark.rule("TOK-4")
async def test_the_first_tokens_share_one_fetch(make: Make, idp: Provider) -> None:
    who = make()
    idp.gate.clear()
    callers = [asyncio.create_task(holds(who, idp.bearer(ec_key("first"), sub=f"u{n}"))) for n in range(20)]
    await until(lambda: idp.requests == 1)
    idp.gate.set()
    assert all(await asyncio.gather(*callers))
    assert idp.requests == 1


@pytest.mark.rule("TOK-4")
async def test_an_unknown_kid_forces_one_refresh_in_30_seconds(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    assert await holds(who, idp.bearer(ec_key("first")))
    clock.now += 30
    idp.keys.append(public(ec_key("second")))
    idp.gate.clear()
    strangers = [asyncio.create_task(holds(who, idp.bearer(ec_key("no"), {"kid": f"no{n}"}))) for n in range(20)]
    rotated = asyncio.create_task(holds(who, idp.bearer(ec_key("second"))))
    await until(lambda: idp.requests == 2)
    idp.gate.set()
    assert not any(await asyncio.gather(*strangers))
    assert await rotated, "a rotated key works without a restart"
    clock.now += 29
    assert not await holds(who, idp.bearer(ec_key("third")))
    assert idp.requests == 2
    clock.now += 1
    assert not await holds(who, idp.bearer(ec_key("fourth")))
    assert idp.requests == 3


async def test_a_clock_set_back_does_not_stop_refreshes(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    assert await holds(who, idp.bearer(ec_key("first")))
    clock.now -= 10_000
    idp.keys = [public(ec_key("second"))]
    assert await holds(who, idp.bearer(ec_key("second")))


@pytest.mark.rule("TOK-3", "TOK-4")
async def test_attack_a_flood_of_bad_tokens_costs_no_fetches_and_evicts_nobody(make: Make, idp: Provider) -> None:
    who = make()
    good = idp.bearer(ec_key("first"))
    assert await holds(who, good)
    template = idp.token(ec_key("no"), {"kid": "no"}).split(".")
    for n in range(300):
        body = idp.token(ec_key("first"), sub=f"u{n}").split(".")[1]
        assert not await holds(who, f"Bearer {template[0]}.{body}.{template[2]}".encode())
    assert idp.requests == 1
    assert who.known(good) is not None


@pytest.mark.key("identity.jwt.jwks_ttl", "identity.jwt.jwks_uri")
@pytest.mark.rule("TOK-4")
async def test_keys_are_refreshed_in_the_background(make: Make, idp: Provider) -> None:
    who = make(jwks_ttl=SOON)
    who.start()
    await until(lambda: idp.requests >= 3)
    idp.gate.clear()  # a slow provider delays nobody whose key is known
    asked = idp.requests
    await until(lambda: idp.requests > asked)
    assert await holds(who, idp.bearer(ec_key("first")))


@pytest.mark.rule("TOK-2", "TOK-4")
async def test_a_removed_key_stops_working_at_the_next_refresh_also_for_cached_tokens(
    make: Make, idp: Provider
) -> None:
    idp.keys.append(public(ec_key("second")))
    who = make(jwks_ttl=SOON)
    removed, kept = idp.bearer(ec_key("first")), idp.bearer(ec_key("second"))
    assert await holds(who, removed) and await holds(who, kept)
    idp.keys = [public(ec_key("second"))]
    await until(lambda: who.known(removed) is None)
    assert not await holds(who, removed)
    assert who.known(kept) is not None, "tokens of the other key are not touched"


@pytest.mark.rule("TOK-2")
async def test_an_empty_key_set_withdraws_every_key(make: Make, idp: Provider) -> None:
    who = make(jwks_ttl=SOON)
    bearer = idp.bearer(ec_key("first"))
    assert await holds(who, bearer)
    idp.keys = []
    await until(lambda: who.known(bearer) is None)
    assert not await holds(who, bearer)


@pytest.mark.rule("TOK-2")
async def test_revoking_a_subject_ends_its_cached_and_other_old_tokens(make: Make, idp: Provider, clock: Clock) -> None:
    who = make()
    old, unused, undated = (idp.bearer(ec_key("first"), **extra) for extra in ({}, {"jti": "2"}, {"iat": None}))
    bob = idp.bearer(ec_key("first"), sub="bob", iat=None)
    assert await holds(who, old) and await holds(who, undated) and await holds(who, bob)
    clock.now += 5
    who.revoke(idp.issuer, "alice")
    assert who.known(old) is None and who.known(undated) is None
    for bearer in (old, unused, undated):
        assert not await holds(who, bearer)
    assert who.known(bob) is not None
    clock.now += 1
    assert await holds(who, bob) and await holds(who, idp.bearer(ec_key("first")))


@pytest.mark.rule("TOK-4")
@pytest.mark.parametrize("mode", ["down", "garbage", "no keys"])
async def test_the_last_good_keys_stay_in_use_during_an_outage(
    make: Make, idp: Provider, mode: Any, caplog: pytest.LogCaptureFixture
) -> None:
    who = make(jwks_ttl=SOON)
    assert await holds(who, idp.bearer(ec_key("first")))
    idp.mode = mode
    asked = idp.requests
    await until(lambda: idp.requests >= asked + 4)
    assert await holds(who, idp.bearer(ec_key("first"), sub="bob"))
    assert "could not be fetched" in caplog.text
    idp.mode, idp.keys = "well", [public(ec_key("second"))]
    await eventually(lambda: holds(who, idp.bearer(ec_key("second"))))


@pytest.mark.rule("TOK-4")
async def test_a_provider_that_is_down_at_the_start_refuses_and_then_recovers(
    make: Make, idp: Provider, clock: Clock
) -> None:
    idp.mode = "down"
    who = make(jwks_ttl=SOON)
    bearer = idp.bearer(ec_key("first"))
    with pytest.raises(Refused) as caught:
        await who.recognise(bearer)
    assert "fetched" in caught.value.reason
    idp.mode = "well"
    clock.now += 6  # past the memory of the refusal, within the 30 s of forced refreshes
    await eventually(lambda: holds(who, idp.bearer(ec_key("first"), sub="bob")))
    assert await holds(who, bearer)


async def test_retries_wait_longer_and_longer_but_never_longer_than_30_seconds(clock: Clock) -> None:
    source = KeySource("x", lambda: fetch("http://127.0.0.1:1/"), ttl=600, clock=clock)
    pauses = []
    for source._failures in (0, 1, 2, 3, 4, 5, 6, 7, 500):
        pauses.append(source._pause())
    assert pauses == [600, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.rule("TOK-4")
async def test_a_provider_that_hangs_is_given_up(make: Make, idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_DEADLINE", 0.02)
    idp.gate.clear()
    assert not await holds(make(), idp.bearer(ec_key("first")))


async def test_a_caller_that_gives_up_does_not_stop_the_fetch_of_the_others(make: Make, idp: Provider) -> None:
    who = make()
    idp.gate.clear()
    hasty = asyncio.create_task(who.recognise(idp.bearer(ec_key("first"))))
    patient = asyncio.create_task(who.recognise(idp.bearer(ec_key("first"), sub="bob")))
    await until(lambda: idp.requests == 1)
    hasty.cancel()
    await asyncio.gather(hasty, return_exceptions=True)
    assert hasty.cancelled()
    idp.gate.set()
    assert (await patient).subject == "bob"
    assert idp.requests == 1


async def test_closing_ends_every_task_and_refuses_who_still_waits(make: Make, idp: Provider, clock: Clock) -> None:
    before = asyncio.all_tasks()
    who = make()
    idp.gate.clear()
    waiting = asyncio.create_task(who.recognise(idp.bearer(ec_key("first"))))
    await until(lambda: idp.requests == 1)
    await who.aclose()
    with pytest.raises(Refused):
        await waiting
    clock.now += 31
    with pytest.raises(Refused):
        await who.recognise(idp.bearer(ec_key("first"), sub="late"))
    assert not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("jwks")]
    await who.aclose()


async def test_a_replacement_recogniser_keeps_the_last_good_keys(make: Make, idp: Provider) -> None:
    before = make()
    assert await holds(before, idp.bearer(ec_key("first")))
    idp.mode = "down"
    same, elsewhere = make(audience=("callgate", "more")), make(jwks_uri=idp.jwks_uri + "2")
    for after in (same, elsewhere):
        after.inherit(before)
    await before.aclose()
    assert await holds(same, idp.bearer(ec_key("first")))
    assert not await holds(elsewhere, idp.bearer(ec_key("first"))), "keys of another place are not trusted"


async def test_a_rotated_key_file_works_without_restart(idp: Provider, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [public(ec_key("first"))]}))
    issuer = Issuer(issuer=idp.issuer, audience=AUDIENCE, jwks_file=str(file), jwks_ttl=SOON)
    who = Recogniser(Identity(jwt=(issuer,)), loopback=True, fetch=fetch, clock=clock)
    assert await holds(who, idp.bearer(ec_key("first")))
    file.write_text(json.dumps({"keys": [public(ec_key("second"))]}))
    await eventually(lambda: holds(who, idp.bearer(ec_key("second"))))
    assert not await holds(who, idp.bearer(ec_key("first")))
    await who.aclose()


def key_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


def weak_rsa() -> dict[str, Any]:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    return {"kty": "RSA", "kid": "weak", "n": int_to_base64(numbers.n), "e": int_to_base64(numbers.e)}


@pytest.mark.parametrize(
    "entry",
    [
        weak_rsa(),
        {**ec_key("leak").as_dict(private=True), "kid": "leak"},
        {**rsa_key("leak").as_dict(private=True), "kid": "leak"},
        OctKey.generate_key(256).as_dict(private=True),
        OKPKey.generate_key("X25519").as_dict(private=False),
        ECKey.generate_key("secp256k1").as_dict(private=False),
        public(ec_key("enc"), use="enc"),
        public(ec_key("odd"), use=7),
        public(ec_key("odd"), kid=7),
        {"kty": "RSA", "e": "AQAB"},
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {**public(rsa_key("one")), "e": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "x"},
        {"kty": ["EC"]},
        {},
        "EC",
        None,
    ],
    ids=range(19),
)
async def test_attack_a_published_key_that_must_not_verify_is_skipped(entry: Any) -> None:
    found = read_keys(key_set(entry, public(ec_key("good"))), {})
    assert [signer.kid for signer in found.values()] == ["good"]


async def test_a_key_for_encryption_is_nothing_to_be_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    found = read_keys(key_set(public(ec_key("box"), use="enc"), public(ec_key("good"))), {})
    assert [signer.kid for signer in found.values()] == ["good"] and not caplog.records


async def test_keys_verify_only_what_they_are_for() -> None:
    entries = [public(ec_key("e")), public(rsa_key("r"), alg="PS256"), public(okp_key("o"))]
    algorithms = [signer.algorithms for signer in read_keys(key_set(*entries), {}).values()]
    assert algorithms == [{"ES256"}, {"PS256"}, {"EdDSA", "Ed25519"}]


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b'{"keys":7}', b"[" * 5000])
async def test_an_answer_that_is_no_key_set(raw: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        read_keys(raw, {})


async def test_the_number_of_keys_is_bounded() -> None:
    with pytest.raises(ValueError, match="100"):
        read_keys(key_set(*[{}] * 101), {})


async def test_a_key_that_stays_is_the_same_object() -> None:
    before = read_keys(key_set(public(ec_key("a")), public(ec_key("b"))), {})
    after = read_keys(key_set(public(ec_key("b"))), before)
    assert next(iter(after.values())) is list(before.values())[1]
