"""The codes that people type to say which terminal they mean (RFC 8628, section 6.1)."""

from __future__ import annotations

import secrets

#: No vowels, which spell words, and nothing that looks like something else: 34 bits.
LETTERS, LENGTH = "BCDFGHJKLMNPQRSTVWXZ", 8


def new_user_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(LENGTH))


def typed_user_code(text: str) -> str:
    """A user code as a person typed it, with whatever hyphens, spaces and capitals; empty for what cannot be one.

    >>> typed_user_code(" bcdf-ghjk "), typed_user_code("AEIO-UYYY"), typed_user_code("BCDFGHJKL")
    ('BCDFGHJK', '', '')
    """
    code = "".join(sign for sign in text[:64].upper() if sign not in " -\u2010\u2011\u2012\u2013\u2014")
    return code if len(code) == LENGTH and set(code) <= set(LETTERS) else ""


def shown_user_code(user_code: str) -> str:
    """A user code as people read it.

    >>> shown_user_code("BCDFGHJK")
    'BCDF-GHJK'
    """
    return f"{user_code[: LENGTH // 2]}-{user_code[LENGTH // 2 :]}"
