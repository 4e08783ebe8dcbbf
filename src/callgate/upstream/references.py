"""Values that stand elsewhere: ``env:NAME``, ``file:PATH``, ``secret:NAME``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from callgate.errors import CallgateError, ConfigError

Resolve = Callable[[str], str]


def resolver(base: Path, resolve_secret: Callable[[str], str], env: Mapping[str, str] = os.environ) -> Resolve:
    """A function that turns a configured value into the real one; ``ConfigError`` when there is none."""

    def resolve(value: str) -> str:
        kind, _, name = value.partition(":")
        if kind == "env":
            if name not in env:
                raise ConfigError(f"the environment variable {name} is not set")
            return env[name]
        if kind == "file":
            try:
                return (base / name).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"the file {name} cannot be read ({error})") from None
        return _secret(name, resolve_secret) if kind == "secret" else value

    return resolve


def _secret(name: str, resolve_secret: Callable[[str], str]) -> str:
    try:
        return resolve_secret(name)
    except CallgateError:
        raise
    except Exception as error:  # a broken secret store must not take callgate down
        raise ConfigError(f"the secret {name} cannot be read ({error})") from None


def resolve_all(values: Mapping[str, str], resolve: Resolve) -> dict[str, str]:
    return {name: resolve(value) for name, value in values.items()}
