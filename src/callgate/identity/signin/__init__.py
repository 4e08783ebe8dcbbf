"""People sign in: at their organisation's identity provider, with a browser (OpenID Connect).

``People`` knows who is signed in with a browser, and how to become so. What is imported here is light; ``provider``
brings the cryptography.
"""

from __future__ import annotations

from .back import checked_back
from .cookies import Cookies
from .people import Departure, People, sign_in_at
from .person import Person, ProviderTokens
from .problem import SignInError

__all__ = ["Cookies", "Departure", "People", "Person", "ProviderTokens", "SignInError", "checked_back", "sign_in_at"]
