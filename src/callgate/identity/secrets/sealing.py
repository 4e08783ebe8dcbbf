"""How a secret is sealed: AES-256-GCM, bound to its tenant, name, version and key (rule SEC-4).

The only module of this folder that imports ``cryptography``; it is loaded when a secret is sealed or opened.
"""

from __future__ import annotations

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12


class NotOpened(Exception):
    """The sealed bytes were changed, belong to something else, or need another key."""


def seal(key: bytes, value: bytes, *bound: str | int) -> bytes:
    """``value``, sealed for what ``bound`` says: only the same words open it."""
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, value, _bound(bound))


def unseal(key: bytes, sealed: bytes, *bound: str | int) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], _bound(bound))
    except (InvalidTag, ValueError):  # ValueError: too short to be anything
        raise NotOpened from None


def _bound(words: tuple[str | int, ...]) -> bytes:
    return msgspec.json.encode(("callgate secret 1", *words))
