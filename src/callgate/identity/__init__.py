"""Who asks: static keys, tokens of identity providers, anonymous callers, the operator.

``Recogniser`` turns an ``Authorization`` header into a ``Principal`` or raises ``Refused``, whose
``kind`` may be told to the caller and whose ``reason`` is for the log. ``new_key`` makes a static key.
The operator's token opens the admin API and nothing else. ``token_issuer`` is what issues tokens to agents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.config import Identity

from .connect import Around as ConnectAround
from .connect import Connected, Connections, Finished, GrantCredential, Pending, Started, user_of
from .keys import hash_key, new_key
from .oauth import (
    AUTHORIZE,
    FORM_BYTES,
    Agents,
    Application,
    Apps,
    Brought,
    Client,
    Declined,
    Form,
    Misled,
    Pairs,
    Registered,
    Resources,
    Revocations,
    Surroundings,
    Throttle,
    TokenError,
    Unfit,
    Wanted,
    host_of,
    named_client,
    proofs,
    protected_resource,
    read_authorization,
    read_form,
    read_registration,
    redirects,
    registered_answer,
    request_again,
    shown_user_code,
    typed_user_code,
)
from .operator import is_operator, operator_proof, operator_token, recognise_operator
from .possession import PROOF_ALGORITHMS, Proved, Shown
from .recognise import Recogniser
from .refusal import Refused
from .secrets import Held, Hold, Secrets, SecretStore, check_name, servers_using, users
from .signin import Cookies, Departure, People, Person, ProviderTokens, SignInError, checked_back, sign_in_at
from .upstream import Circle, Credential, Credentials, Keys, exchanges_callers, signs, vouched_for

if TYPE_CHECKING:
    from .oauth.devices import Device, Devices
    from .oauth.issuing import Issued, TokenIssuer
    from .oauth.signed_in import SignedIn
    from .signin.provider import IdentityProvider

__all__ = [
    "AUTHORIZE",
    "FORM_BYTES",
    "PROOF_ALGORITHMS",
    "Agents",
    "Application",
    "Apps",
    "Brought",
    "Circle",
    "Client",
    "ConnectAround",
    "Connected",
    "Connections",
    "Cookies",
    "Credential",
    "Credentials",
    "Declined",
    "Departure",
    "Device",
    "Devices",
    "Finished",
    "Form",
    "GrantCredential",
    "Held",
    "Hold",
    "IdentityProvider",
    "Issued",
    "Keys",
    "Misled",
    "Pairs",
    "Pending",
    "People",
    "Person",
    "Proved",
    "ProviderTokens",
    "Recogniser",
    "Refused",
    "Registered",
    "Resources",
    "Revocations",
    "SecretStore",
    "Secrets",
    "Shown",
    "SignInError",
    "SignedIn",
    "Started",
    "Surroundings",
    "Throttle",
    "TokenError",
    "TokenIssuer",
    "Unfit",
    "Wanted",
    "check_name",
    "checked_back",
    "exchanges_callers",
    "hash_key",
    "host_of",
    "is_operator",
    "named_client",
    "new_key",
    "operator_proof",
    "operator_token",
    "proofs",
    "protected_resource",
    "read_authorization",
    "read_form",
    "read_registration",
    "recognise_operator",
    "redirects",
    "registered_answer",
    "request_again",
    "servers_using",
    "shown_user_code",
    "sign_in_at",
    "signs",
    "token_issuer",
    "typed_user_code",
    "user_of",
    "users",
    "vouched_for",
]


def token_issuer(identity: Identity, around: Surroundings) -> TokenIssuer | None:
    """The token service, its keys ready, where the configuration wants one. Touches the disk; raises ConfigError."""
    if identity.oauth is None:
        return None
    from .oauth.issuing import TokenIssuer  # brings cryptography

    service = TokenIssuer(identity, around)
    service.open()
    return service
