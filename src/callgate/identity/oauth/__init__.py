"""The token service: short-lived tokens for agents, and delegation chains that hold (ADR 010).

``TokenIssuer`` answers the requests of the token endpoint and verifies the tokens that it issued. What is imported
here is light; ``issuing`` brings the cryptography.
"""

from __future__ import annotations

from .agents import Agents, Registered
from .problem import TokenError
from .request import FORM_BYTES, Form, named_client, read_form
from .resources import Resources, protected_resource
from .throttle import Throttle

__all__ = [
    "FORM_BYTES",
    "Agents",
    "Form",
    "Registered",
    "Resources",
    "Throttle",
    "TokenError",
    "named_client",
    "protected_resource",
    "read_form",
]
