"""A folder with configuration files, and ``load`` looking at nothing else of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from callgate.config import Loaded, load
from callgate.errors import ConfigError


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.system = path / "etc" / "callgate.yaml"
        self.user = path / ".config" / "callgate" / "callgate.yaml"

    def write(self, name: str | Path, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def load(
        self,
        text: str | None = None,
        file: str = "",
        flags: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        **more: str,
    ) -> Loaded:
        """Load ``file``, else ``callgate.yaml`` when there is one; ``text`` is written to it first.

        ``env`` and ``more`` are the environment.
        """
        if text is not None:
            self.write(file or "callgate.yaml", text)
        named = Path(file) if file else None
        whole = {"HOME": str(self.path), **(env or {}), **more}
        return load(named, flags=flags or {}, env=whole, cwd=self.path, system=self.system)

    def refused(self, text: str | None = None, file: str = "", **env: str) -> list[ConfigError]:
        """The problems that loading ends with."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, file, env=env)
        return list(caught.value.problems)
