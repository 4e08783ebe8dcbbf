"""What `guard` may hold: globs that can match something, and checks that this installation can make."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fnmatch import fnmatchcase

from callgate.errors import ConfigError, nearest

from .document import Document
from .model import Settings

VALIDATOR = "jsonschema_rs"


def check_guard(settings: Settings, document: Document) -> Iterator[ConfigError]:
    """Globs that name no server, and validation without the validator: it never passes everything instead."""
    guard = settings.guard
    for glob in guard.tools:
        server, slash, tool = glob.partition("/")
        if not slash or not server or not tool:
            hint = f"write `{glob or '*'}/*` for all tools of a server"
            yield document.wrong(
                f"`{glob}` is not of the form `server/tool`", ("guard", "tools", glob), hint=hint, key=True
            )
        elif not any(fnmatchcase(known, server) for known in settings.servers):
            near = nearest(server, settings.servers)
            hint = f"did you mean `{near}/{tool}`?" if near else "it is compared with the names under `servers`"
            yield document.wrong(f"no server matches `{glob}`", ("guard", "tools", glob), hint=hint, key=True)
    if importlib.util.find_spec(VALIDATOR) is not None:
        return
    for key, off in (("arguments", None), ("results", None)):
        said = [getattr(guard, key), *(getattr(each, key) for each in guard.tools.values())]
        if any(value not in ("off", off) for value in said):
            hint = "install it: `pip install jsonschema-rs`"
            yield document.wrong(f"`{key}` needs the package jsonschema-rs, which is not here", ("guard",), hint=hint)
