"""The keys of applications that nobody wrote down here: strangers say where they are, and when they are needed."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc.jwk import ECKey

from callgate.identity.jwks import read_keys
from callgate.identity.oauth.apps import Application
from callgate.identity.oauth.flights import AT_ONCE
from callgate.identity.oauth.keysets import KeySets
from callgate.identity.oauth.surroundings import Surroundings
from tests.identity.provider import Clock, ec_key, public, until

pytestmark = pytest.mark.anyio


def hold(kind: str, shape: type[Any]) -> Any:
    raise AssertionError("nothing is held here")


async def follow(reference: str) -> str:
    raise AssertionError("there are no references here")


def application(number: int) -> Application:
    uri = f"https://victim.example/{number}"
    return Application("https://a.example/c", "document", (), methods=("private_key_jwt",), jwks_uri=uri)


async def test_strangers_cannot_have_a_host_flooded_with_fetches(tmp_path: Path) -> None:
    """Nobody has proved anything when keys are fetched."""
    asked: list[str] = []
    go_on = asyncio.Event()

    async def fetch(url: str) -> bytes:
        asked.append(url)
        await go_on.wait()
        return b'{"keys": []}'

    sets = KeySets(Surroundings(lambda: "", tmp_path, fetch, fetch, hold, follow), Clock())
    same = [asyncio.create_task(sets.find(application(0), f"kid {each}", "ES256")) for each in range(50)]
    others = [asyncio.create_task(sets.find(application(each), "kid", "ES256")) for each in range(50)]
    await until(lambda: len(asked) == AT_ONCE)
    await asyncio.sleep(0.01)
    assert len(asked) == len(set(asked)) == AT_ONCE
    go_on.set()
    assert await asyncio.gather(*same, *others) == [[]] * 100
    await sets.find(application(0), "another", "ES256")
    assert len(asked) == AT_ONCE  # what was fetched a moment ago is not fetched again
    await sets.aclose()


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


@pytest.mark.parametrize(("bits", "exponent"), [(3072, (1 << 3070) + 1), (3072, (1 << 33) + 1), (16384, 65537)])
def test_strangers_publish_no_key_that_takes_long_to_verify_with(bits: int, exponent: int) -> None:
    """A signature by such a key takes milliseconds of everybody's time, and costs the stranger nothing."""
    slow = {"kty": "RSA", "n": number((1 << bits - 1) + 1), "e": number(exponent)}
    fine = {"kty": "RSA", "n": number((1 << 4095) + 1), "e": number(65537), "kid": "fine"}
    found = read_keys(msgspec.json.encode({"keys": [slow, fine]}), {})
    assert [each.kid for each in found.values()] == ["fine"]


async def test_strangers_cannot_have_a_hundred_keys_tried(tmp_path: Path) -> None:
    many = [public(ECKey.generate_key("P-256"), kid="one") for _ in range(20)]

    async def fetch(url: str) -> bytes:
        return msgspec.json.encode({"keys": [*many, public(ec_key("two"))]})

    sets = KeySets(Surroundings(lambda: "", tmp_path, fetch, fetch, hold, follow), Clock())
    assert await sets.find(application(0), "one", "ES256") == []
    assert [each.kid for each in await sets.find(application(0), "two", "ES256")] == ["two"]
