"""A backend of the ``keyring`` package, as a desktop would bring one: it keeps everything in a file below the home."""

from __future__ import annotations

import json
from pathlib import Path

from keyring.backend import KeyringBackend


class Ring(KeyringBackend):
    priority = 5

    @property
    def file(self) -> Path:
        return Path.home() / "ring.json"

    def _held(self) -> dict[str, str]:
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        return self._held().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self.file.write_text(json.dumps({**self._held(), f"{service} {username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        held = self._held()
        del held[f"{service} {username}"]
        self.file.write_text(json.dumps(held))
