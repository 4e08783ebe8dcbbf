"""What ties tokens to keys, as rules for grants: a binding is never lost on the way from one token to the next."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from callgate.config import OAuth
from callgate.identity.possession import JKT, is_thumbprint
from callgate.types import Principal

from .apps import Application, Client
from .problem import TokenError, invalid_grant, invalid_request


def check_required(config: OAuth, client: Client | None, confirmation: Mapping[str, str]) -> None:
    """Raise TokenError where a token must be bound and the request proved nothing that it could be bound to.

    An application can want that for itself: then it is a key, and no certificate will do (RFC 9449, section 5.2).
    """
    wanted = isinstance(client, Application) and client.bound and JKT not in confirmation
    if wanted or (config.dpop == "required" and not confirmation):
        raise TokenError("invalid_dpop_proof", "Tokens are bound here: send a DPoP proof.")


def check_parent(parent: Principal, confirmation: Mapping[str, str]) -> None:
    """A token that is bound is exchanged for a bound one only: for one of the client that asks, with a key of its own.

    The parent's key is its holder's, who handed the token on; its consent is asked for elsewhere (rule DEL-2). Raises
    TokenError.
    """
    if parent.confirmation and not confirmation:
        raise TokenError("invalid_dpop_proof", "The subject token is bound: send a DPoP proof of your own key.")


def check_actor_held(actor: Principal, confirmation: Mapping[str, str]) -> None:
    """An actor token is the client's own (rule DEL-1): where it is bound, the client has its key. Raises TokenError."""
    if not same(actor.confirmation, confirmation):
        raise invalid_grant("The actor token is bound to another key.")


def check_refresh(held: Mapping[str, str], confirmation: Mapping[str, str]) -> None:
    """A refresh token that is bound comes with its key (RFC 9449, section 5; rule AST-7). Raises TokenError.

    ``held`` is the confirmation that the token of a public client was issued with.
    """
    if not same(held, confirmation):
        raise invalid_grant("The refresh token is bound to another key.")


def check_code(jkt: str, confirmation: Mapping[str, str]) -> None:
    """A code that was asked for with ``dpop_jkt`` comes with that key (RFC 9449, section 10). Raises TokenError."""
    if jkt and not same({JKT: jkt}, confirmation):
        raise invalid_grant("The code is bound to another key.")


def read_dpop_jkt(value: str | None) -> str:
    """The parameter ``dpop_jkt`` of an authorization request; empty where there is none. Raises TokenError."""
    if value is not None and not is_thumbprint(value):
        raise invalid_request("`dpop_jkt` is not the thumbprint of a key.")
    return value or ""


def same(held: Mapping[str, str], confirmation: Mapping[str, str]) -> bool:
    """Whether a request proved everything that something is bound to.

    >>> same({"jkt": "a"}, {"jkt": "a"}), same({"jkt": "a"}, {}), same({}, {"jkt": "a"})
    (True, False, True)
    """
    return all(hmac.compare_digest(value, confirmation.get(name, "")) for name, value in held.items())
