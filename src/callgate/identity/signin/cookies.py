"""The cookies of the sign-in: their names, and how they are set and taken back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from callgate.egress import is_loopback

from .problem import SignInError

#: What callgate puts into a cookie: 256 random bits.
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


class Cookies:
    """The cookies below the public URL ``base``.

    With https they have the prefix ``__Host-``: no other host and no page without TLS can set them. On loopback without
    TLS they have the port in their names, because browsers do not tell ports apart. Anywhere else there are none.
    """

    def __init__(self, base: str) -> None:
        at = urlsplit(base)
        self._secure = at.scheme == "https"
        self.possible = self._secure or is_loopback(at.hostname or "")
        self._around = ("__Host-", "") if self._secure else ("", f"-{at.port or 80}")
        self.session = self.named("callgate")
        self.attempt = self.named("callgate-sign-in")

    def named(self, name: str) -> str:
        """The whole name of a cookie."""
        prefix, suffix = self._around
        return f"{prefix}{name}{suffix}"

    def check(self) -> None:
        """Raises SignInError where no cookie would be safe."""
        if not self.possible:
            raise SignInError(
                "Nobody can sign in here yet: the gateway needs an https address.", "public_url is not https", 503
            )

    def read(self, name: str, cookies: Mapping[str, str]) -> str:
        """The value of one of our cookies; empty for anything that callgate did not make."""
        value = cookies.get(name, "") if self.possible else ""
        return value if _VALUE.fullmatch(value) else ""

    def set(self, name: str, value: str, seconds: float) -> str:
        """A ``Set-Cookie`` header."""
        secure = "; Secure" if self._secure else ""
        return f"{name}={value}; Path=/; Max-Age={int(seconds)}; HttpOnly; SameSite=Lax{secure}"

    def clear(self, name: str) -> str:
        return self.set(name, "", 0)


def digest(value: str) -> str:
    """What is kept of a value that is a right by itself."""
    return hashlib.sha256(value.encode()).hexdigest()
