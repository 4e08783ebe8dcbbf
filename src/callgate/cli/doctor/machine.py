"""The installation, the data directory, the clock, the ports."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import platform
import shutil
import socket
import stat
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from callgate import __version__
from callgate.cli.doctor.finding import Finding, Notes
from callgate.config import Address, Loaded, parse_address
from callgate.egress import HttpPool
from callgate.errors import CallgateError

#: Packages that callgate can do without: module, distribution, what is missing without it.
OPTIONAL = (
    ("uvloop", "uvloop", "the gateway is slower"),
    ("watchfiles", "watchfiles", "changed files are noticed later"),
    ("cel_expr_python", "cel-expr-python", "policies cannot have `when:`"),
)
LITTLE, TOO_LITTLE = 1024**3, 64 * 1024**2


def installation() -> list[Finding]:
    """callgate, Python, and the packages that may be absent."""
    notes = Notes("installation")
    notes.ok(f"callgate {__version__} in {Path(__file__).parents[2]}")
    notes.ok(f"Python {platform.python_version()} at {sys.executable}")
    if shutil.which("callgate") is None:
        notes.warning(
            "`callgate` is not on PATH", f"Run it as `{sys.executable} -m callgate`, or activate its environment."
        )
    for module, distribution, loss in OPTIONAL:
        if module == "uvloop" and os.name == "nt":
            continue
        if importlib.util.find_spec(module) is None:
            notes.warning(f"{distribution} is not installed: {loss}", f"pip install {distribution}")
        else:
            notes.ok(f"{distribution} {_version(distribution)}")
    return notes.found


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(version unknown)"


def data_dir(loaded: Loaded) -> list[Finding]:
    """Who may read the state, and whether there is room for more."""
    notes, folder = Notes("data directory"), loaded.data_dir
    if not os.access(folder, os.W_OK | os.X_OK):
        notes.problem(f"{folder} cannot be written to", f"chown {_user()} {folder} && chmod 700 {folder}")
    else:
        notes.ok(f"{folder} can be written to")
    if os.name == "posix":
        _private(folder, notes)
    free = shutil.disk_usage(folder).free
    room = f"{free / 1024**3:.1f} GiB free"
    if free < TOO_LITTLE:
        notes.problem(
            f"{room}: the audit log will soon not be written", "Free some space, or set `data_dir` elsewhere."
        )
    elif free < LITTLE:
        notes.warning(room, "Free some space; `audit.retention_days` bounds the audit log.")
    else:
        notes.ok(room)
    return notes.found


def _private(folder: Path, notes: Notes) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        notes.warning(f"others of this machine can look into {folder} ({mode:o})", f"chmod 700 {folder}")
    token = folder / "operator.token"
    try:
        if token.exists() and token.stat().st_mode & 0o077:
            notes.problem(f"others can read {token}; callgate does not start then", f"rm {token}  # a new one is made")
    except OSError as error:
        notes.problem(f"{token} cannot be looked at: {error.strerror}", f"chown -R {_user()} {folder}")


def _user() -> str:
    return os.environ.get("USER") or "$(id -un)"


def clock() -> list[Finding]:
    """Whether the time can be right: records and tokens depend on it."""
    notes = Notes("clock")
    built = Path(__file__).stat().st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    before, started = time.time(), time.monotonic()
    time.sleep(0.01)
    drift = (time.time() - before) - (time.monotonic() - started)
    if time.time() < built - 86400:
        notes.problem(f"{shown} UTC is before callgate was installed", "Set the clock: `timedatectl set-ntp true`.")
    elif abs(drift) > 1:
        notes.warning(f"the clock was set while it was looked at ({drift:+.1f} s)", "Check the time service.")
    else:
        notes.ok(f"{shown} UTC")
    return notes.found


async def ports(loaded: Loaded) -> list[Finding]:
    """Whether the listeners are free, or callgate's own already."""
    notes = Notes("ports")
    settings = loaded.settings
    for key, text, flag in (
        ("listen", settings.listen, "--port"),
        ("admin_listen", settings.admin_listen, "--admin-port"),
    ):
        address = parse_address(text)
        if address is None or address.port == 0:
            notes.ok(f"{key}: any free port")
            continue
        problem = _taken(address)
        if problem == "":
            notes.ok(f"{key}: {address} is free")
        elif problem == "in use":
            await _whose(address, key, flag, notes)
        else:
            notes.problem(f"{key}: {address}: {problem}", f"Set `{key}` to an address of this machine, or use {flag}.")
    return notes.found


def _taken(address: Address) -> str:
    """Why this process could not listen there: ``""``, ``"in use"``, or the system's reason."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as error:
            return "in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return ""


async def _whose(address: Address, key: str, flag: str, notes: Notes) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host, str(address).rpartition(":")[0])  # noqa: S104
    path = "/healthz" if key == "listen" else "/api/v1/status"
    pool = HttpPool(proxy="")
    try:
        origin = pool.origin(f"http://{host}:{address.port}{path}")
        deadline = asyncio.get_running_loop().time() + 3
        response = await origin.request(origin.start_line("GET", path) + b"\r\n", deadline, replay=True)
        said = msgspec.json.decode(response.body)
        ours = isinstance(said, dict) and ("version" in said or "code" in said.get("error", {}))
    except (CallgateError, msgspec.MsgspecError, AttributeError):
        ours = False
    finally:
        await pool.aclose()
    if ours:
        notes.ok(f"{key}: callgate itself is running on {address}")
    else:
        find = f"lsof -i :{address.port}" if os.name == "posix" else f"netstat -ano | findstr :{address.port}"
        notes.problem(
            f"{key}: another program uses {address}",
            f"Find it with `{find}`, or start with `{flag} 0` (any free port).",
        )
