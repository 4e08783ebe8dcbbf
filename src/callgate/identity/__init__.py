"""Who asks: static keys, tokens of identity providers, anonymous callers, the operator.

``Recogniser`` turns an ``Authorization`` header into a ``Principal`` or raises ``Refused``, whose
``kind`` may be told to the caller and whose ``reason`` is for the log. ``new_key`` makes a static key.
The operator's token opens the admin API and nothing else.
"""

from __future__ import annotations

from .keys import hash_key, new_key
from .operator import is_operator, operator_token, recognise_operator
from .recognise import Recogniser
from .refusal import Refused

__all__ = [
    "Recogniser",
    "Refused",
    "hash_key",
    "is_operator",
    "new_key",
    "operator_token",
    "recognise_operator",
]
