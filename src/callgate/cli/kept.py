"""The sign-ins of this user, one for each gateway: in the system's keyring, or in a file that only the user can read.

The file is ``signed-in.json`` in the XDG state directory. It also says which sign-ins the keyring has, so that a
command asks the keyring only where there is one. Commands that run at once take turns with a lock: of those that would
refresh one token, the first does, and the others find the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from callgate.errors import ConfigError, Overloaded

FILE, LOCK, SERVICE = "signed-in.json", "signed-in.lock", "callgate"
#: How long one command waits for another one that signs in or refreshes (seconds).
TURN = 30.0
_NOT_OURS = "Delete it and run `callgate login` again."


class SignedIn(msgspec.Struct, frozen=True):
    """One sign-in. ``url`` is the root of the gateway; all endpoints lie below it, and its tokens go nowhere else.
    ``expires`` is when the access token ends (seconds since the epoch). It does not show itself when it is printed.
    """

    url: str
    issuer: str
    token_endpoint: str
    access_token: str
    expires: float
    refresh_token: str = ""
    scope: str = ""
    revocation_endpoint: str = ""

    def __repr__(self) -> str:
        return f"SignedIn({self.url!r}, ***)"

    __str__ = __repr__


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the file says of one gateway: the sign-in itself, or that the keyring has it."""

    keyring: bool = False
    signed_in: SignedIn | None = None


class KeptSignIns:
    """Raises ConfigError where the file is not what this user alone can have written. Touches the disk."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        named = Path(env.get("XDG_STATE_HOME") or "")
        home = Path(env.get("HOME") or Path.home())
        self.folder = (named if named.is_absolute() else home / ".local" / "state") / "callgate"
        self.file = self.folder / FILE

    def get(self, url: str) -> SignedIn | None:
        """The sign-in at this gateway."""
        entry = self._read().get(url)
        if entry is None:
            return None
        found = _from_keyring(url) if entry.keyring else entry.signed_in
        return found if found is not None and found.url == url else None  # never another one's tokens

    def urls(self) -> list[str]:
        """The gateways at which there is a sign-in."""
        return list(self._read())

    def put(self, signed_in: SignedIn) -> bool:
        """Keep it in place of the one before; returns whether the keyring has it."""
        entries = self._read()
        there = _to_keyring(signed_in)
        before = entries.get(signed_in.url)
        if before is not None and before.keyring and not there:
            _forget(signed_in.url)
        entries[signed_in.url] = _Entry(keyring=True) if there else _Entry(signed_in=signed_in)
        self._write(entries)
        return there

    def drop(self, url: str) -> None:
        entries = self._read()
        entry = entries.pop(url, None)
        if entry is not None:
            if entry.keyring:
                _forget(url)
            self._write(entries)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """No other command changes anything meanwhile. Raises Overloaded when one does not come to its end."""
        self._make_folder()
        try:
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise ConfigError(f"`{self.folder / LOCK}` cannot be used: {error.strerror}.", hint="Delete it.") from None
        try:
            until = time.monotonic() + TURN
            while not _locked(handle):
                if time.monotonic() > until:
                    hint = "Wait for it, or end it."
                    raise Overloaded("Another command of callgate is signing in and does not end.", hint=hint)
                await asyncio.sleep(0.05)
            yield
        finally:
            os.close(handle)  # and with it the lock

    def _read(self) -> dict[str, _Entry]:
        try:
            handle = os.open(self.file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return {}
        except OSError as error:
            reason = "it is a link" if self.file.is_symlink() else error.strerror
            raise ConfigError(f"`{self.file}` cannot be used: {reason}.", hint=_NOT_OURS) from None
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if os.name == "posix" and (found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode)):
                raise ConfigError(f"`{self.file}` is not a file of yours.", hint=_NOT_OURS)
            if os.name == "posix" and found.st_mode & 0o077:
                raise ConfigError(
                    f"Others can read `{self.file}`.", hint=f"{_NOT_OURS} They may have the tokens in it."
                )
            try:
                return msgspec.json.decode(file.read(), type=dict[str, _Entry])
            except msgspec.MsgspecError:  # its text is not repeated: there are tokens in it
                raise ConfigError(f"`{self.file}` cannot be understood.", hint=_NOT_OURS) from None

    def _write(self, entries: Mapping[str, _Entry]) -> None:
        """All at once, or nothing; readable by the user alone from the first moment."""
        self._make_folder()
        draft = self.file.with_name(f".{FILE}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.encode(entries))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.file)
        except OSError as error:
            raise ConfigError(f"`{self.file}` cannot be written: {error.strerror}.", hint="Check its folder.") from None
        finally:
            draft.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            found = self.folder.stat()
        except OSError as error:
            raise ConfigError(f"`{self.folder}` cannot be used: {error.strerror}.", hint="Check its owner.") from None
        if os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & 0o022):
            raise ConfigError(
                f"Others can change what is in `{self.folder}`.", hint=f"`chmod 700 {self.folder}`, as its owner."
            )


def _locked(handle: int) -> bool:
    """Try to take the lock of an open file."""
    with contextlib.suppress(OSError):
        if os.name == "nt":
            importlib.import_module("msvcrt").locking(handle, 2, 1)  # LK_NBLCK: the first byte, without waiting
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _keyring() -> Any:
    """The system's keyring, where `callgate[keyring]` is installed and there is one to be trusted: those that keep
    passwords in a file of their own, or nowhere, are worse than ours (they have a priority below 1).
    """
    try:
        keyring = importlib.import_module("keyring")
        return keyring if keyring.get_keyring().priority >= 1 else None
    except Exception:  # whatever a desktop has to say about it
        return None


def _from_keyring(url: str) -> SignedIn | None:
    keyring = _keyring()
    with contextlib.suppress(Exception):
        text = keyring.get_password(SERVICE, url) if keyring is not None else None
        return msgspec.json.decode(text, type=SignedIn) if text else None
    return None


def _to_keyring(signed_in: SignedIn) -> bool:
    """Whether the keyring has it: some are locked, some take only short texts."""
    keyring = _keyring()
    if keyring is None:
        return False
    try:
        text = msgspec.json.encode(signed_in).decode()
        keyring.set_password(SERVICE, signed_in.url, text)
        return bool(keyring.get_password(SERVICE, signed_in.url) == text)
    except Exception:
        return False


def _forget(url: str) -> None:
    keyring = _keyring()
    if keyring is not None:
        with contextlib.suppress(Exception):
            keyring.delete_password(SERVICE, url)
