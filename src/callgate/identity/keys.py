"""Static keys, and the names by which principals are told apart inside the house."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

import msgspec

from callgate.config import Key
from callgate.errors import ConfigError
from callgate.types import DEFAULT_TENANT, Principal

PREFIX = "cg_"
RESERVED = frozenset({"anonymous", "operator", "unauthenticated"})


def new_key() -> tuple[str, str]:
    """A new static key and its SHA-256. The key goes to the agent, the hash into ``callgate.yaml``.

    The key holds 256 random bits; its prefix lets people and secret scanners recognise it.

    >>> key, digest = new_key()
    >>> key.startswith("cg_"), digest == hash_key(key)
    (True, True)
    """
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """SHA-256 of a key in hexadecimal, as ``identity.keys[].sha256`` wants it.

    No salt and no slow hash: a key from ``new_key`` cannot be guessed, and the hash is computed on every call.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def principal_key(issuer: str, subject: str, tenant: str = DEFAULT_TENANT) -> str:
    """The stable name of a principal: equal for every credential of the same person or agent.

    Sessions and cursors are bound to it, so a renewed token keeps them and another principal never gets them.
    JSON keeps the three parts apart, whatever they contain.
    """
    return hashlib.sha256(msgspec.json.encode((tenant, issuer, subject))).hexdigest()


def anonymous() -> Principal:
    return Principal(subject="anonymous", key=principal_key("", "anonymous"), via="anonymous")


def holders(keys: Iterable[Key]) -> dict[bytes, Principal]:
    """The holder of each configured key by the digest of the key. Raises ConfigError.

    A dict lookup is not constant in time, but what it compares are SHA-256 digests: an attacker cannot
    choose a digest that shares a prefix with a stored one without already knowing a preimage.
    """
    found: dict[bytes, Principal] = {}
    for key in keys:
        digest = bytes.fromhex(key.sha256)
        if digest in found:
            raise ConfigError(
                f"The same key is configured for `{found[digest].subject}` and `{key.subject}`.",
                hint="Give every entry of identity.keys its own key.",
            )
        if key.subject in RESERVED:
            # The same subject without an issuer would share sessions with callers who are really that.
            raise ConfigError(
                f"No key may have the subject `{key.subject}`: callgate uses that name itself.",
                hint="Choose another subject, such as `agent:ci`.",
            )
        found[digest] = Principal(
            subject=key.subject,
            key=principal_key("", key.subject),
            roles=key.roles,
            groups=key.groups,
            via="key",
        )
    return found
