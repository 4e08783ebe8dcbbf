"""The keys of the local store: never in the database, readable by their owner only.

One key a line, in base64; the first one seals, the others only open what an interrupted rotation has not sealed
anew. A key's name is made from the key, so that it can stand beside what it sealed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from callgate.errors import ConfigError

SIZE = 32
VARIABLE = "CALLGATE_SECRETS_KEY"
LARGEST = 64 * 1024
_OTHERS = 0o077


class Key(msgspec.Struct, frozen=True):
    """``id`` is public; ``text`` is how the key is written down."""

    id: str
    raw: bytes
    text: str

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Keys:
    """The keys in a file, or those given by the environment, which then come first and are never written."""

    def __init__(self, file: Path, given: str = "") -> None:
        self.file = file
        self.given = given

    @property
    def place(self) -> str:
        """Where the keys are, for people."""
        return VARIABLE if self.given else str(self.file)

    def read(self) -> tuple[Key, ...]:
        """All keys, the sealing one first; none when there is no file yet. Raises ``ConfigError``."""
        if self.given:
            return _keys(self.given.replace(",", "\n"), VARIABLE)
        try:
            with self.file.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(LARGEST)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(
                f"The key file {self.file} cannot be read: {error.strerror}.", hint="Check its owner and its folder."
            ) from None
        if os.name == "posix" and mode & _OTHERS:
            raise ConfigError(
                f"Others can read or write the key file {self.file}.",
                hint=f"`chmod 600 {self.file}`; if they may have read it, `callgate secret rotate-key` after that, "
                "and give the secrets new values.",
            )
        return _keys(content.decode("latin-1"), str(self.file))

    def first(self, in_use: Callable[[], frozenset[str]]) -> Key:
        """The key that seals. It is made, and written down, only where nothing is sealed with a key that is gone:
        ``in_use`` says which keys something is sealed with.
        """
        keys = self.read()
        if keys:
            return keys[0]
        if in_use():
            raise self.gone()
        key = new_key()
        self.write((key,))
        return key

    def gone(self) -> ConfigError:
        return ConfigError(
            f"There are secrets, but their key is not at {self.place}.",
            hint="Put the key back; without it, `callgate secret rm` all of them and set them again.",
        )

    def write(self, keys: tuple[Key, ...]) -> None:
        """Put these keys into the file: all of them at once or, when anything goes wrong, nothing."""
        file = Path(os.path.realpath(self.file))  # a link stays one: the key belongs where it leads
        draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
                out.write("".join(f"{key.text}\n" for key in keys))
                out.flush()
                os.fsync(out.fileno())
            draft.replace(file)
            _settle(file.parent)
        except OSError as error:
            raise ConfigError(
                f"The key file {self.file} cannot be written: {error.strerror}.",
                hint="Check its folder, or name another file with `secrets.key_file`.",
            ) from None
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def new_key() -> Key:
    return _key(secrets.token_bytes(SIZE))


def _key(raw: bytes) -> Key:
    name = hashlib.sha256(b"callgate secrets key\0" + raw).hexdigest()[:16]
    return Key(name, raw, base64.b64encode(raw).decode())


def _keys(text: str, place: str) -> tuple[Key, ...]:
    """Nothing of the text is shown when it is wrong: it may be nearly a key."""
    found: dict[str, Key] = {}
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        try:
            raw = base64.b64decode(line, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != SIZE:
            raise ConfigError(
                f"{place} holds something that is no key of {SIZE} bytes in base64.",
                hint="Put the key back as it was; without it the secrets must be set again.",
            )
        key = _key(raw)
        found[key.id] = key
    if not found:
        raise ConfigError(f"{place} holds no key.", hint="Put the key back; without it the secrets must be set again.")
    return tuple(found.values())


def _settle(folder: Path) -> None:
    """The new name is on disk when this returns."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
