"""Settings of policy: its layers, and what the operator says of tools instead of their servers."""

from __future__ import annotations

from typing import Annotated, Literal

from .kinds import Section, Text, doc


class PolicyLayer(Section, frozen=True):
    """One policy file and what it may do."""

    file: Annotated[Text, doc("The policy file.")]
    narrows: Annotated[
        bool, doc("The file can only take away: what the other files do not allow, it does not allow either.")
    ] = False


class ToolClass(Section, frozen=True):
    """What the operator says of tools. It comes before what their server claims."""

    operation: Annotated[
        Literal["read", "write", "delete", "execute"] | None,
        doc(
            "What the tools do. Default: follows from the other keys, or from what the server claims if it is believed."
        ),
    ] = None
    read_only: Annotated[bool | None, doc("They change nothing.")] = None
    destructive: Annotated[bool | None, doc("They may destroy or overwrite something.")] = None
    idempotent: Annotated[bool | None, doc("A second call with the same arguments changes nothing more.")] = None
    open_world: Annotated[bool | None, doc("They reach an open world, such as the web.")] = None
