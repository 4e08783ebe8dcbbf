"""The operator's token: the key to the admin API, made once and kept in the data directory."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from callgate.errors import ConfigError
from callgate.types import Principal

from .keys import principal_key
from .refusal import Refused

OPERATOR_PREFIX = "cgo_"
FILE_NAME = "operator.token"
_SHAPE = re.compile(rf"{OPERATOR_PREFIX}[A-Za-z0-9_-]{{43}}")
_OPERATOR = Principal(subject="operator", key=principal_key("", "operator"), via="operator")


def operator_token(data_dir: Path) -> str:
    """The token in ``data_dir``, made on the first call; only its owner may read the file. Touches the disk.

    Processes that start at once agree on one token. Raises ConfigError when the file cannot be made or read,
    holds something else, or can be read by others: then the token may be known, and only a new one helps.
    """
    path = data_dir / FILE_NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
        open_to_others = os.name == "posix" and path.stat().st_mode & 0o077
        token = path.read_text("utf-8", errors="replace").strip()
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be used: {error.strerror}.", hint="Check `data_dir` and its owner."
        ) from None
    if open_to_others:
        raise ConfigError(f"Others can read `{path}`.", hint="Delete it; callgate makes a new one when it starts.")
    if not _SHAPE.fullmatch(token):
        raise ConfigError(f"`{path}` holds no operator token.", hint="Delete it; callgate makes a new one.")
    return token


def operator_proof(token: str, admin: str, nonce: str) -> str:
    """What only a gateway can say that has the token itself: shown before anybody shows it the token.

    ``admin`` is the URL of its admin listener, so that nobody passes the proof on for a listener of theirs.
    """
    return hmac.new(token.encode(), f"callgate operator\n{admin}\n{nonce}".encode(), hashlib.sha256).hexdigest()


def _make(path: Path) -> None:
    draft = path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # never readable by others, not for a moment
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(OPERATOR_PREFIX + secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename it never replaces a file that another process just made
    except FileExistsError:
        pass
    except OSError:
        draft.replace(path)  # a file system without hard links
    finally:
        draft.unlink(missing_ok=True)


def is_operator(presented: str, token: str) -> bool:
    """Whether ``presented`` is the operator's ``token``; takes the same time wherever they differ."""
    return hmac.compare_digest(presented.encode(), token.encode())


def recognise_operator(authorization: bytes | None, token: str) -> Principal:
    """The operator, for the admin API; ``authorization`` is the header's value. Raises Refused."""
    if authorization is None:
        raise Refused("missing", "no Authorization header")
    credential = authorization[7:].strip(b" ").decode("latin-1")
    if authorization[:7].lower() != b"bearer " or not is_operator(credential, token):
        raise Refused("not accepted", "not the operator's token")
    return _OPERATOR
