"""Secrets and where they are kept: the local store, its keys, Vault, and the references that lead there.

What is found is used for servers only; no caller, log, record or page of callgate shows it.
"""

from __future__ import annotations

from .following import Secrets, servers_using, users
from .held import Held, Hold
from .keys import Keys
from .local import SecretStore, check_name
from .value import Secret

__all__ = ["Held", "Hold", "Keys", "Secret", "SecretStore", "Secrets", "check_name", "servers_using", "users"]
