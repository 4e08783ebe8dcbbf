"""How often somebody may try: bounds on the endpoints of the token service, in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from .problem import TokenError

WINDOW = 60.0
#: Failed attempts in one window: of one client from one address, and of one address whatever it says to be.
CLIENT_FAILURES, ADDRESS_FAILURES = 10, 50
#: Requests of one address in one window.
REQUESTS = 6_000
REMEMBERED = 20_000


class Throttle:
    """Counts in windows of a minute. A client is locked out at the address of the failures only: whoever guesses
    elsewhere does not shut the client itself out. ``requests``: how many one address may make in a window. Of IPv6 a
    network counts as one address: whoever has one has them all.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, size: int = REMEMBERED, requests: int = REQUESTS
    ) -> None:
        self._requests = requests
        self._clock = clock
        self._size = size
        self._counts: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def admit(self, client: str, address: str) -> None:
        """Count a request. Raises TokenError (429) when there were too many, or too many that failed."""
        address = _sender(address)
        self._count(("requests", "", address))
        for key, most in (
            (("requests", "", address), self._requests),
            (("failures", "", address), ADDRESS_FAILURES),
            (("failures", client[:256], address), CLIENT_FAILURES),
        ):
            if self._now(key) > most - (key[0] == "failures"):
                raise TokenError("temporarily_unavailable", "Too many attempts; wait a minute.", 429)

    def failed(self, client: str, address: str) -> None:
        address = _sender(address)
        self._count(("failures", "", address))
        if client:
            self._count(("failures", client[:256], address))

    def _now(self, key: tuple[str, str, str]) -> int:
        until, count = self._counts.get(key, (0.0, 0))
        return count if until > self._clock() else 0

    def _count(self, key: tuple[str, str, str]) -> None:
        now = self._clock()
        until, count = self._counts.pop(key, (0.0, 0))
        self._counts[key] = (until, count + 1) if until > now else (now + WINDOW, 1)
        if len(self._counts) > self._size:
            self._counts.popitem(last=False)


def _sender(address: str) -> str:
    """Who sends from an address: of IPv6, everybody in the smallest network that is given to somebody (RFC 6177)."""
    try:
        found = ipaddress.IPv6Address(address) if ":" in address else None
    except ValueError:
        return address
    if found is None or found.ipv4_mapped is not None:
        return address if found is None else str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
