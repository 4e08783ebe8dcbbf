"""Whose identity an upstream server is shown: assertions that callgate signs, and tokens of the server's own issuer.

``Credentials`` makes one ``Credential`` for each server with ``auth``. What the caller presented at the front door is
never sent to a server; where the configuration says so it is exchanged at the server's issuer, and nowhere else.
"""

from __future__ import annotations

from .credential import Credential
from .credentials import Circle, Credentials, Keys, exchanges_callers, signs, vouched_for
from .presented import Presented

__all__ = ["Circle", "Credential", "Credentials", "Keys", "Presented", "exchanges_callers", "signs", "vouched_for"]
