"""What stands between what a server lists and what is shown: the guard may hold entries back or show others instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from callgate.types import JSON, Listing

if TYPE_CHECKING:
    from callgate.catalog.parts import Part

#: A definition as it is to be shown, and why it is not (empty: it is).
Shown = tuple[JSON, str]


class Screened(msgspec.Struct, frozen=True):
    """A listing as it is to be compiled. Entries that are held back stay in it, so that a call is told why."""

    tools: tuple[Shown, ...]
    prompts: tuple[Shown, ...]
    templates: tuple[Shown, ...]


class Screen(Protocol):
    """Both run in threads, possibly several at once. ``strict``: ``across`` may hold something back."""

    @property
    def strict(self) -> bool: ...

    def listing(self, listing: Listing) -> Screened:
        """One server's listing, whoever it was listed to."""

    def across(self, parts: Mapping[str, Part], order: Collection[str]) -> Mapping[str, str]:
        """Entries (``server/name``) that are held back because of those of other servers, and why."""


class Open:
    """Shows everything as it was listed."""

    strict = False

    def listing(self, listing: Listing) -> Screened:
        return Screened(
            *(tuple((each, "") for each in of) for of in (listing.tools, listing.prompts, listing.templates))
        )

    def across(self, parts: Mapping[str, Part], order: Collection[str]) -> Mapping[str, str]:
        return {}


OPEN = Open()
