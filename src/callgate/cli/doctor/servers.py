"""Every configured server: can its program be found, can its address be reached, do its references lead somewhere?"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from callgate.cli.doctor.finding import Finding, Notes
from callgate.config import Loaded, Server, variable_of
from callgate.egress import HttpPool
from callgate.errors import CallgateError, UpstreamError, UpstreamTimeout, UpstreamUnavailable, nearest
from callgate.identity import Secrets
from callgate.store import DATABASE, open_database

REACH = 5.0
#: Programs that servers are commonly started with, and how one gets them.
INSTALL = {
    "uvx": "Install uv: https://docs.astral.sh/uv/getting-started/installation/",
    "uv": "Install uv: https://docs.astral.sh/uv/getting-started/installation/",
    "npx": "Install Node.js (npx comes with it): https://nodejs.org/",
    "node": "Install Node.js: https://nodejs.org/",
    "docker": "Install Docker: https://docs.docker.com/get-docker/",
    "python": "Write `python3`, or name the interpreter with its whole path.",
}
MOST_PROGRAMS = 20_000


async def servers(loaded: Loaded) -> list[Finding]:
    """Look at all servers at once; none is started."""
    looks = [_server(name, each, loaded) for name, each in loaded.settings.servers.items()]
    return [finding for found in await asyncio.gather(*looks) for finding in found]


async def _server(name: str, server: Server, loaded: Loaded) -> list[Finding]:
    notes = Notes(f"server {name}")
    if server.disabled:
        notes.ok("disabled")
        return notes.found
    for key, value in (*server.env.items(), *server.headers.items()):
        _reference(key, value, loaded, notes)
    if server.auth.client_secret is not None:
        _reference("auth.client_secret", server.auth.client_secret, loaded, notes)
    if server.command is not None:
        _command(server.command, server, loaded.base, notes)
    elif server.url is not None:
        await _url(server.url, server, notes)
    return notes.found


def _reference(key: str, value: str, loaded: Loaded, notes: Notes) -> None:
    """``env:NAME``, ``file:PATH`` and ``secret:NAME`` must lead to something."""
    kind, _, name = value.partition(":")
    if kind == "env" and name not in os.environ:
        near = nearest(name, os.environ)
        hint = f"export {name}=…" + (f"  (or did you mean {near}?)" if near else "")
        notes.problem(f"{key}: the environment variable {name} is not set", hint)
    elif kind == "file" and not os.access(loaded.base / name, os.R_OK):
        notes.problem(f"{key}: the file {loaded.base / name} cannot be read", "Create it, or correct the path.")
    elif kind == "secret":
        _secret(key, name, loaded, notes)


def _secret(key: str, name: str, loaded: Loaded, notes: Notes) -> None:
    """A secret must be in the store, where it can be opened, or in the environment."""
    variable = variable_of(name)
    kept = (loaded.data_dir / DATABASE).exists()  # nothing is made by looking
    try:
        found = Secrets(loaded, open_database(loaded.data_dir)).store.get(name) if kept else None
    except CallgateError as error:
        notes.problem(f"{key}: {error.message}", error.hint)
        return
    if found is None and variable not in os.environ:
        notes.problem(f"{key}: the secret {name} is not set", f"callgate secret set {name}  (or export {variable}=…)")


def _command(command: str, server: Server, base: Path, notes: Notes) -> None:
    folder = Path(server.cwd) if server.cwd else base
    if not folder.is_dir():
        notes.problem(f"the working directory {folder} does not exist", f"mkdir -p {folder}")
        return
    path = server.env.get("PATH", os.environ.get("PATH", ""))
    if os.sep in command or command.startswith("."):
        _file(folder / Path(command).expanduser(), notes)
        return
    found = shutil.which(command, path=path)
    if found is not None:
        notes.ok(f"{command} is {found}")
        return
    near = nearest(command, _programs(path))
    fix = INSTALL.get(command, "")
    if near and not fix:
        fix = f"Did you mean `{near}`? Else install it, or write its whole path."
    notes.problem(f"the command `{command}` is not on PATH", fix or "Install it, or write its whole path.")


def _file(file: Path, notes: Notes) -> None:
    if not file.exists():
        names = [each.name for each in file.parent.iterdir()] if file.parent.is_dir() else []
        near = nearest(file.name, names)
        notes.problem(
            f"{file} does not exist", f"Did you mean `{file.parent / near}`?" if near else "Correct the path."
        )
    elif not os.access(file, os.X_OK):
        notes.problem(f"{file} cannot be executed", f"chmod +x {file}")
    else:
        notes.ok(f"{file} can be executed")


def _programs(path: str) -> list[str]:
    names: list[str] = []
    for folder in path.split(os.pathsep):
        try:
            names += [each.name for each in Path(folder or ".").iterdir()]
        except OSError:
            continue
    return names[:MOST_PROGRAMS]


async def _url(url: str, server: Server, notes: Notes) -> None:
    """Connect and ask; any HTTP answer will do, because a GET is not how MCP is spoken."""
    pool = HttpPool(ca_file=server.ca_file, proxy=server.proxy, connect_timeout=REACH)
    try:
        await pool.fetch(url, timeout=REACH, headers=_plain(server.headers))
    except UpstreamUnavailable as error:
        notes.problem(
            f"{url} {error.message}", "Check the address, the network, and `proxy` or `ca_file` if it needs them."
        )
    except UpstreamTimeout:
        notes.ok(f"{url} can be reached")  # a server that opens a stream for a GET sends nothing more
    except UpstreamError:
        notes.ok(f"{url} can be reached")
    except CallgateError as error:
        notes.problem(error.message, error.hint)
    else:
        notes.ok(f"{url} can be reached")
    finally:
        await pool.aclose()


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers without credentials: whether somebody is there can be asked by anybody."""
    return {name: value for name, value in headers.items() if name.lower() in ("host", "user-agent")}
