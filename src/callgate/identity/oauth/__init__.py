"""The token service: short-lived tokens for agents, and delegation chains that hold (ADR 010).

``TokenIssuer`` answers the requests of the token endpoint and verifies the tokens that it issued. What is imported
here is light; ``issuing`` brings the cryptography.
"""

from __future__ import annotations

from . import redirects
from .agents import Agents, Registered, proofs
from .apps import Application, Apps, Client, host_of
from .asked import AUTHORIZE, Declined, Misled, Pairs, Wanted, read_authorization, request_again
from .described import Unfit
from .marks import Revocations
from .problem import TokenError
from .registration import read_registration, registered_answer
from .request import FORM_BYTES, Form, named_client, read_form
from .resources import Resources, protected_resource
from .surroundings import Brought, Surroundings
from .throttle import Throttle
from .user_codes import shown_user_code, typed_user_code

__all__ = [
    "AUTHORIZE",
    "FORM_BYTES",
    "Agents",
    "Application",
    "Apps",
    "Brought",
    "Client",
    "Declined",
    "Form",
    "Misled",
    "Pairs",
    "Registered",
    "Resources",
    "Revocations",
    "Surroundings",
    "Throttle",
    "TokenError",
    "Unfit",
    "Wanted",
    "host_of",
    "named_client",
    "proofs",
    "protected_resource",
    "read_authorization",
    "read_form",
    "read_registration",
    "redirects",
    "registered_answer",
    "request_again",
    "shown_user_code",
    "typed_user_code",
]
