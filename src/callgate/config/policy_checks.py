"""What operators say of tools must not contradict itself."""

from __future__ import annotations

from collections.abc import Iterator

from callgate.errors import ConfigError

from .document import Document
from .model import Settings
from .model_policy import ToolClass
from .node import Path_


def check_classes(settings: Settings, document: Document) -> Iterator[ConfigError]:
    for name, server in settings.servers.items():
        for glob, said in server.classify.items():
            at: Path_ = ("servers", name, "classify", glob)
            if not glob.strip():
                yield document.wrong("a glob over tools is empty", at, hint="`*` is every tool", key=True)
            yield from _said(said, at, document)


def _said(said: ToolClass, at: Path_, document: Document) -> Iterator[ConfigError]:
    if said.operation is not None and said.read_only not in (None, said.operation == "read"):
        hint = "remove one of them"
        yield document.wrong(
            f"`read_only: {str(said.read_only).lower()}` contradicts `operation: {said.operation}`",
            (*at, "read_only"), hint=hint,
        )  # fmt: skip
    reads = said.operation == "read" or said.read_only
    if reads and said.destructive:
        yield document.wrong(
            "what only reads destroys nothing", (*at, "destructive"), hint="remove `destructive`, or say `write`"
        )
