from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from callgate.config import Identity, Issuer, Key
from callgate.identity import Recogniser

from .provider import AUDIENCE, Clock, Make, Provider, ec_key, fetch


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def idp(clock: Clock) -> AsyncIterator[Provider]:
    async with Provider(clock, ec_key("first")) as provider:
        yield provider


@pytest.fixture
async def make(clock: Clock, idp: Provider) -> AsyncIterator[Make]:
    """Makes a recogniser that trusts ``idp``; keywords change the issuer's settings."""
    made: list[Recogniser] = []

    def build(*, keys: tuple[Key, ...] = (), anonymous: bool | None = None, **changes: Any) -> Recogniser:
        issuer = Issuer(**{"issuer": idp.issuer, "audience": AUDIENCE, "jwks_uri": idp.jwks_uri, **changes})
        identity = Identity(jwt=(issuer,), keys=keys, anonymous=anonymous)
        made.append(Recogniser(identity, loopback=True, fetch=fetch, clock=clock))
        return made[-1]

    yield build
    for recogniser in made:
        await recogniser.aclose()
