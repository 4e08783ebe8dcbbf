"""Who asks: static keys, tokens of identity providers, anonymous callers, the operator.

``Recogniser`` turns an ``Authorization`` header into a ``Principal`` or raises ``Refused``, whose
``kind`` may be told to the caller and whose ``reason`` is for the log. ``new_key`` makes a static key.
The operator's token opens the admin API and nothing else. ``token_issuer`` is what issues tokens to agents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from callgate.config import Identity

from .keys import hash_key, new_key
from .oauth import (
    FORM_BYTES,
    Agents,
    Form,
    Registered,
    Resources,
    Throttle,
    TokenError,
    named_client,
    protected_resource,
    read_form,
)
from .operator import is_operator, operator_token, recognise_operator
from .recognise import Recogniser
from .refusal import Refused
from .secrets import Secrets, SecretStore, check_name, users
from .upstream import Credential, Credentials, Keys, exchanges_callers, signs

if TYPE_CHECKING:
    from .oauth.issuing import Issued, TokenIssuer

__all__ = [
    "FORM_BYTES",
    "Agents",
    "Credential",
    "Credentials",
    "Form",
    "Issued",
    "Keys",
    "Recogniser",
    "Refused",
    "Registered",
    "Resources",
    "SecretStore",
    "Secrets",
    "Throttle",
    "TokenError",
    "TokenIssuer",
    "check_name",
    "exchanges_callers",
    "hash_key",
    "is_operator",
    "named_client",
    "new_key",
    "operator_token",
    "protected_resource",
    "read_form",
    "recognise_operator",
    "signs",
    "token_issuer",
    "users",
]


def token_issuer(
    identity: Identity, base: Callable[[], str], data_dir: Path, fetch: Callable[[str], Awaitable[bytes]]
) -> TokenIssuer | None:
    """The token service, its keys ready, where the configuration wants one. Touches the disk; raises ConfigError."""
    if identity.oauth is None:
        return None
    from .oauth.issuing import TokenIssuer  # brings cryptography

    service = TokenIssuer(identity, base, data_dir, fetch)
    service.open()
    return service
