"""What one server offers, without the doors that show it."""

from __future__ import annotations

from callgate.catalog.classes import Classes
from callgate.catalog.parts import compile_part
from callgate.types import Listing, Tool


def entries(listing: Listing, classes: Classes) -> tuple[Tool, ...]:
    """The tools, prompts, resources and templates of a listing, as policy knows them."""
    part = compile_part(listing, classes)
    return (*part.tools, *(entry for several in part.others.values() for entry in several))
