"""What the token service needs of the house."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from callgate.identity.secrets.held import Hold


class Brought(msgspec.Struct, frozen=True):
    """What was behind a URL, with the headers (names in lower case) that it came with."""

    body: bytes
    headers: Mapping[bytes, bytes] = msgspec.field(default_factory=dict)


class Surroundings(msgspec.Struct, frozen=True):
    """What the token service needs of the house. ``base`` is the public URL of the gateway listener, known once it
    listens; ``fetch`` brings what the operator named, ``fetch_public`` what strangers name (public addresses only);
    ``hold`` makes a place for things that are held, ``resolve`` follows a reference to a secret. ``get_public`` is
    ``fetch_public`` with the headers of the answer.
    """

    base: Callable[[], str]
    data_dir: Path
    fetch: Callable[[str], Awaitable[bytes]]
    fetch_public: Callable[[str], Awaitable[bytes]]
    hold: Hold
    resolve: Callable[[str], Awaitable[str]]
    get_public: Callable[[str], Awaitable[Brought]] | None = None
