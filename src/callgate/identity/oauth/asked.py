"""Authorization requests: what a browser brings from an application, checked in an order that matters.

While the application or its redirect URI is in doubt nothing is sent anywhere: the person reads a page (``Misled``).
After that every error goes to the application (``Declined``), with ``state`` and ``iss`` (RFC 9207, rule AS-6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from . import redirects
from .apps import Application
from .binding import read_dpop_jkt
from .grant_types import CODE
from .grants import Rules
from .problem import TokenError
from .request import scopes_of
from .resources import EVERYTHING, listed
from .sessions import scopes_for

if TYPE_CHECKING:
    from .clients import Clients

AUTHORIZE = "/oauth/authorize"
MOST_PARAMETERS, LONGEST, LONGEST_REQUEST = 32, 2048, 7168
#: How a sign-in that was asked for (`prompt=login`) is known to have happened: the time from which it counts.
SINCE = "callgate_since"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})
Pairs = Sequence[tuple[str, str]]


class Misled(Exception):
    """The request cannot be trusted to name where an answer may go. The text is for the person, and repeats nothing."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


class Target(msgspec.Struct, frozen=True):
    """Where the answer to a request goes, once the application and this place have been checked."""

    client: str
    redirect_uri: str
    state: str | None

    def answer(self, issuer: str, **parameters: str) -> str:
        """The URL with the answer."""
        state = {} if self.state is None else {"state": self.state}
        return redirects.with_answer(self.redirect_uri, urlencode({**parameters, **state, "iss": issuer}))


class Declined(Exception):
    """The application is told why (RFC 6749, section 4.1.2.1)."""

    def __init__(self, target: Target, error: str, why: str) -> None:
        super().__init__(f"{error}: {why}")
        self.target = target
        self.error = error
        self.why = why


class Wanted(msgspec.Struct, frozen=True):
    """A request that holds: the application wants a code for the endpoint ``path``, with these scopes.

    ``since``: the person must have signed in later than this (seconds since the epoch).
    """

    target: Target
    path: str
    scopes: tuple[str, ...]
    challenge: str
    prompts: frozenset[str]
    jkt: str = ""
    since: float = 0.0


async def read_authorization(pairs: Pairs, clients: Clients, rules: Rules) -> tuple[Wanted, Application]:
    """The request and its application. Raises Misled or Declined."""
    found = _single(pairs)
    app, redirect_uri = await _application(found, clients)
    state = found.get("state")
    fits = state is None or (len(state) <= LONGEST and state.isascii() and state.isprintable())
    target = Target(app.name, redirect_uri, state if fits else None)
    if not fits:
        raise Declined(target, "invalid_request", "The `state` is too long, or has characters that none has.")
    if len({name for name, _ in pairs}) != len(pairs):
        error = "invalid_target" if sum(name == "resource" for name, _ in pairs) > 1 else "invalid_request"
        raise Declined(target, error, "A parameter occurs twice.")
    return _checked(found, app, target, rules), app


def _single(pairs: Pairs) -> dict[str, str]:
    """The parameters by name. What decides where the answer goes must be there once."""
    # As it is written: so long it can still travel through the sign-in and back.
    if len(pairs) > MOST_PARAMETERS or len(urlencode(pairs)) > LONGEST_REQUEST:
        raise Misled("The request is too large.")
    for name in ("client_id", "redirect_uri"):
        if [each for each, _ in pairs].count(name) > 1:
            raise Misled(f"The request names its `{name}` twice.")
    return {name: value for name, value in reversed(pairs) if value}


async def _application(found: Mapping[str, str], clients: Clients) -> tuple[Application, str]:
    id, uri = found.get("client_id", ""), found.get("redirect_uri", "")
    client = await clients.find(id) if id and len(id) <= LONGEST and id.isascii() and id.isprintable() else None
    if not isinstance(client, Application) or not client.active:
        raise Misled(
            "The application is not known here.",
            "Its `client_id` must be one that is configured, or the URL of its metadata document.",
        )
    if not uri:
        raise Misled("The request has no `redirect_uri`.")
    if not redirects.registered(uri, client.redirect_uris):
        raise Misled(
            "The address that the answer should go to is not one of the application's.",
            "Compare it with its registered redirect URIs, character by character.",
        )
    return client, uri


def _checked(found: Mapping[str, str], app: Application, target: Target, rules: Rules) -> Wanted:
    for error, why in _faults(found, app):
        raise Declined(target, error, why)
    try:
        jkt = read_dpop_jkt(found.get("dpop_jkt"))
    except TokenError as error:
        raise Declined(target, error.error, error.description) from None
    prompts = frozenset(found.get("prompt", "").split())
    if not prompts <= _PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise Declined(target, "invalid_request", "The `prompt` is not understood.")
    path = rules.resources.path(found.get("resource", EVERYTHING))
    if path is None or not listed(path, app.audiences):
        why = "The `resource` is not an endpoint that the application may have tokens for."
        raise Declined(target, "invalid_target", why)
    scopes = _scopes(found, app, target, rules)
    return Wanted(target, path, scopes, found["code_challenge"], prompts, jkt, _since(found))


def _faults(found: Mapping[str, str], app: Application) -> Iterator[tuple[str, str]]:
    """What is wrong with the shape of a request: code and sentence."""
    if "request" in found or "request_uri" in found:
        yield "request_not_supported", "Send the parameters themselves."
    if "response_type" not in found:
        yield "invalid_request", "The `response_type` is missing."
    if found.get("response_type") != "code":
        yield "unsupported_response_type", "The only `response_type` is `code`."
    if found.get("response_mode", "query") != "query":
        yield "invalid_request", "The only `response_mode` is `query`."
    if CODE not in app.grants:
        yield "unauthorized_client", "The application may not use this grant."
    if found.get("code_challenge_method") != "S256":
        yield "invalid_request", "PKCE with `code_challenge_method=S256` is needed."
    if not _CHALLENGE.fullmatch(found.get("code_challenge", "")):
        yield "invalid_request", "The `code_challenge` is not one of S256."


def _scopes(found: Mapping[str, str], app: Application, target: Target, rules: Rules) -> tuple[str, ...]:
    """What was asked for, or all that the application may have (rule AS-1: nothing is added silently)."""
    most = scopes_for(app, rules.config.scopes)
    if "scope" not in found:
        return most
    # Scopes that only agents have are in our metadata too, and clients ask for all that they find there.
    of_agents = {scope for scope in rules.agents.scopes if scope not in rules.config.scopes}
    asked = tuple(each for each in scopes_of(found["scope"]) if each not in of_agents)
    if not set(asked) <= set(most):
        raise Declined(
            target, "invalid_scope", "More scope than the application may have, or scopes that there are not."
        )
    return asked


def _since(found: Mapping[str, str]) -> float:
    text = found.get(SINCE, "")
    return float(text) if text.isdigit() and len(text) < 12 else 0.0


def request_again(pairs: Pairs, now: float | None = None) -> str:
    """The path that makes the same request again after a sign-in; ``now``: one that is later than this."""
    left = list(pairs)
    if now is not None:
        left = [(name, value) for name, value in left if name not in ("prompt", SINCE)]
        # The other prompts still count: a consent that was asked for is not lost with the sign-in.
        prompts = {word for name, value in pairs if name == "prompt" for word in value.split()}
        rest = " ".join(sorted(prompts - {"login", "select_account"}))
        left += [(SINCE, str(int(now)))] + ([("prompt", rest)] if rest else [])
    return f"{AUTHORIZE}?{urlencode(left)}"
