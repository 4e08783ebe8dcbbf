"""What the settings are made of: texts, durations, sizes, and the words about each in the reference."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .units import BYTES, SECONDS

Text = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, **SECONDS)]
Bytes = Annotated[int, Meta(gt=0, **BYTES)]
Count = Annotated[int, Meta(gt=0)]
# Signatures with public keys, no others: the same list that `identity` can verify.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448",
)  # fmt: skip
Sha256 = Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")]


def doc(text: str, **more: Any) -> Meta:
    return Meta(description=text, **more)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One mapping of the file, with its keys."""
