"""Secret keys that callgate makes for itself, such as the one that seals sessions and cursors."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from callgate.errors import ConfigError
from callgate.store.sqlite import make_private_folder

SIZE = 32


def secret_key(data_dir: Path, name: str) -> bytes:
    """The 32 random bytes called ``name``, from ``data_dir/NAME.key``; made at the first call.

    The file is readable by its owner only and appears whole or not at all; of processes that start together
    all get the same key. Raises ``ConfigError`` when the file cannot be used.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", name):
        raise ConfigError(f"{name!r} cannot name a key.", hint="Use lower-case letters, digits and hyphens.")
    path = data_dir / f"{name}.key"
    try:
        if not path.exists():
            make_private_folder(data_dir)
            _create(path)
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The key file {path} cannot be used: {error}.", hint="Make the file readable, or name another `data_dir`."
        ) from error
    if len(key) != SIZE:
        raise ConfigError(
            f"The key file {path} holds {len(key)} bytes instead of {SIZE}.",
            hint="Delete it to get a new key; open sessions end.",
        )
    return key


def _create(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        # Neither of the two replaces a file: who comes second takes the key of who came first.
        with contextlib.suppress(FileExistsError):
            draft.rename(path) if os.name == "nt" else path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
