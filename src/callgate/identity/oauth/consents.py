"""What people agreed to, and the pages on which they are asked."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable

import msgspec

from callgate.identity.secrets.held import Held, Hold
from callgate.identity.signin.person import Person

from . import redirects
from .apps import Application
from .asked import Target, Wanted

#: How long a page may lie open, and how long an answer is remembered (seconds).
PATIENCE, REMEMBERED = 600.0, 90 * 86400.0


class Question(msgspec.Struct, frozen=True):
    """A page that was shown: the request, and to whom. ``at`` is the time of the person's sign-in."""

    wanted: Wanted
    person: str
    at: float


class Consent(msgspec.Struct, frozen=True):
    """The scopes that a person agreed to."""

    scopes: tuple[str, ...]


class Consents:
    """Owns both. A page can be answered once, by the person and the sign-in that it was made for."""

    def __init__(self, hold: Hold, clock: Callable[[], float]) -> None:
        self._questions: Held[Question] = hold("consent-page", Question)
        self._given: Held[Consent] = hold("consent", Consent)
        self._clock = clock

    async def ask(self, wanted: Wanted, person: Person) -> str:
        """The name under which the page is answered."""
        name = secrets.token_urlsafe(32)
        question = Question(wanted, person.key, person.at)
        await self._questions.put(name, question, person.key, self._clock() + PATIENCE)
        return name

    async def answered(self, name: str, person: Person) -> Wanted | None:
        """What the page was about; ``None`` when it was answered before, is too old, or was shown to somebody else."""
        question = await self._questions.take(name)
        if question is None or question.at != person.at or not hmac.compare_digest(question.person, person.key):
            return None
        return question.wanted

    async def covers(self, wanted: Wanted, app: Application, person: Person) -> bool:
        """Whether the person agreed to all of this before, and it can only be the same application that asks again."""
        if not recognisable(app, wanted.target):
            return False
        given = await self._given.get(_name(wanted, person))
        return given is not None and set(wanted.scopes) <= set(given.scopes)

    async def remember(self, wanted: Wanted, app: Application, person: Person) -> None:
        if not recognisable(app, wanted.target):
            return
        before = await self._given.get(_name(wanted, person))
        scopes = tuple(dict.fromkeys((*(before.scopes if before is not None else ()), *wanted.scopes)))
        until = self._clock() + REMEMBERED
        await self._given.put(_name(wanted, person), Consent(scopes), person.key, until)


def recognisable(app: Application, target: Target) -> bool:
    """Whether nobody else can come in the application's name: its code goes to an https address that the operator or
    its own document names, or it proves itself. Programs on a person's machine can take each other's name (RFC 8252,
    section 8.6), and who registers itself was never seen before.
    """
    if app.kind == "registered":
        return False
    return not app.public or redirects.is_https(target.redirect_uri)


def _name(wanted: Wanted, person: Person) -> str:
    where = redirects.form_source(wanted.target.redirect_uri)
    return f"{person.key}\0{wanted.target.client}\0{wanted.path}\0{where}"
