"""Authorization codes: for a minute, for one use, for the client that asked and nobody else (rule AST-5)."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Mapping

import msgspec

from callgate.identity.s256 import s256
from callgate.identity.secrets.held import Held, Hold

from .apps import Application
from .binding import check_code
from .problem import TokenError, invalid_grant
from .request import Form, needed
from .sessions import Session

#: How long a code may be used, and how long it is known that it was (seconds): no token of its family that is not
#: refreshed lives longer.
LIFETIME, REMEMBERED = 60.0, 3700.0
_VERIFIER = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


class Code(msgspec.Struct, frozen=True):
    """What a code stands for. ``secret`` is what the id of the family is a digest of, ``jkt`` the key that the client
    announced (RFC 9449, section 10); ``expires`` is seconds since the epoch.
    """

    session: Session
    redirect_uri: str
    challenge: str
    secret: str
    expires: float
    jkt: str = ""
    used: bool = False


class Codes:
    """Owns the codes."""

    def __init__(self, hold: Hold, clock: Callable[[], float]) -> None:
        self._held: Held[Code] = hold("code", Code)
        self._clock = clock

    async def make(self, code: Code) -> str:
        """A code that stands for this; its time begins now."""
        name = "cgc_" + secrets.token_urlsafe(32)
        now = self._clock()
        thing = msgspec.structs.replace(code, expires=now + LIFETIME)
        await self._held.put(name, thing, code.session.who.key, now + REMEMBERED)
        return name

    async def redeem(self, app: Application, form: Form, confirmation: Mapping[str, str]) -> Code:
        """What the code stands for. Any attempt uses it up, also one that fails: a code that was seen by somebody else
        is worth nothing. Raises TokenError; Replayed when it was used before.
        """
        name, verifier = needed(form, "code"), needed(form, "code_verifier")
        code = await self._held.change(name, lambda found: msgspec.structs.replace(found, used=True))
        if code is None or code.session.client != app.name:
            raise _refused()
        if code.used:
            raise Replayed(code)
        if code.expires <= self._clock() or form.get("redirect_uri", code.redirect_uri) != code.redirect_uri:
            raise _refused()
        if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(s256(verifier.encode()), code.challenge):
            raise _refused()
        check_code(code.jkt, confirmation)
        return code


class Replayed(TokenError):
    """A code came twice: what the first one got must end."""

    def __init__(self, code: Code) -> None:
        told = {"event": "code used twice", **code.session.told}
        super().__init__("invalid_grant", "The code was used before; what it gave has ended.", told=told)
        self.code = code


def _refused() -> TokenError:
    return invalid_grant("The code is not accepted.")
