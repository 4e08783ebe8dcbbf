"""The settings of a provider that say who comes in, and as whom: who came in by others comes in anew."""

from __future__ import annotations

import hashlib

import msgspec

from callgate.config import Provider


def fingerprint(config: Provider) -> str:
    """Names these settings. What only says how the provider is asked, or what it is called, is not among them."""
    same = msgspec.structs.replace(
        config, title="", client_secret=None, client_auth=None, scopes=(), id_jag=False, id_jag_reuse=False
    )
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()[:32]
