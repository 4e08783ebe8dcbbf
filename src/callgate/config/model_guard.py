"""The settings under `guard`: what becomes of definitions that change or deceive, and of arguments and results."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import field

from .kinds import Bytes, Count, Section, doc

Pin = Literal["off", "changes", "all"]
OnChange = Literal["hide", "warn", "serve_pinned"]
Check = Literal["off", "validate"]
Results = Literal["off", "warn", "block"]


class MaxResult(Section, frozen=True):
    """How much one result may hold. Without a bound nothing is looked at."""

    bytes: Annotated[Bytes | None, doc("Largest result, as JSON.")] = None
    items: Annotated[Count | None, doc("Most content blocks, resource contents or messages.")] = None
    text: Annotated[Count | None, doc("Most characters of text, all blocks together.")] = None
    mime: Annotated[
        tuple[str, ...] | None,
        doc("Globs over the types of pictures, sounds and files that may pass, such as `image/*`. Default: all."),
    ] = None
    over: Annotated[
        Literal["truncate", "spill", "block"],
        doc(
            "What becomes of a result that is too large: it is cut and says so; besides that, the whole is kept for an hour under a link that only the same caller can read; or the caller gets an error instead."
        ),
    ] = "truncate"


class ToolGuard(Section, frozen=True):
    """What holds for some tools instead of what `guard` says for all. What is not set stays as it is there."""

    pin: Annotated[Pin | None, doc("As `guard.pin`.")] = None
    on_change: Annotated[OnChange | None, doc("As `guard.on_change`.")] = None
    arguments: Annotated[Check | None, doc("As `guard.arguments`.")] = None
    results: Annotated[Results | None, doc("As `guard.results`.")] = None
    max_result: Annotated[
        MaxResult | None, doc("As `guard.max_result`, whole: keys are not mixed with those there.")
    ] = None


class Guard(Section, frozen=True):
    """What servers say of themselves, and what goes to them and comes from them, is checked."""

    pin: Annotated[
        Pin,
        doc(
            "Whether definitions of tools, prompts and resource templates are remembered. `changes`: what is seen first is trusted, a change is quarantined (`on_change`). `all`: what is new is quarantined as well, until an operator approves it."
        ),
    ] = "off"
    on_change: Annotated[
        OnChange,
        doc(
            "What becomes of an approved definition that its server changed: it is hidden and not callable, it is served with a warning, or the approved one is served in its place."
        ),
    ] = "hide"
    lookalikes: Annotated[
        Literal["off", "warn", "quarantine"],
        doc("Names that look like those of another server's tools, and descriptions that speak of them."),
    ] = "warn"
    hidden_text: Annotated[
        Literal["off", "flag", "strip", "quarantine"],
        doc(
            "Text in definitions that models read and people do not see: invisible characters, escape sequences, HTML comments, `data:` URIs."
        ),
    ] = "flag"
    arguments: Annotated[
        Check,
        doc(
            "`validate`: calls whose arguments do not fit the tool's input schema do not reach the server. A tool whose schema cannot be used is quarantined."
        ),
    ] = "off"
    results: Annotated[
        Results, doc("Structured results that do not fit the tool's output schema: noted in the record, or withheld.")
    ] = "off"
    images: Annotated[
        Literal["keep", "remove"],
        doc(
            "`remove`: pictures from the web in the text of results (Markdown, HTML) are taken out, because showing one sends its URL to a stranger."
        ),
    ] = "keep"
    max_result: Annotated[MaxResult, doc("How much one result may hold.")] = field(default_factory=MaxResult)
    tools: Annotated[
        dict[str, ToolGuard],
        doc(
            "Other values for some tools, by globs over `server/tool`, `server/prompt:NAME` and `server/resource:URI`. Of several that match, the first that says something counts."
        ),
    ] = field(default_factory=dict)
