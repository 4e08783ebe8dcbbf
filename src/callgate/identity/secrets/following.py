"""From a reference to its value: the store, the environment, a vault."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from callgate.config import Loaded, Server, read_here, stored_name, variable_of
from callgate.errors import ConfigError
from callgate.store import Database, SqliteSecrets

from .keys import VARIABLE, Keys
from .local import SecretStore
from .value import Secret
from .vault import VaultClient

FILE_NAME = "secrets.key"


class Secrets:
    """What ``secret:`` and ``vault:`` references lead to. ``aclose`` it at the end."""

    def __init__(self, loaded: Loaded, database: Database, env: Mapping[str, str] = os.environ) -> None:
        settings = loaded.settings.secrets
        file = Path(settings.key_file) if settings.key_file else loaded.data_dir / FILE_NAME
        self.store = SecretStore(SqliteSecrets(database), Keys(file, env.get(VARIABLE, "")))
        self._base = loaded.base
        self._env = env
        self._vault = VaultClient(settings.vault, self._vault_token) if settings.vault else None

    async def resolve(self, reference: str, fresh: bool) -> str:
        """The value of a reference, at this moment unless it may come from a cache (``fresh`` is false).

        Raises ``ConfigError``, or ``UpstreamError`` when a vault cannot be reached.
        """
        kind, _, name = reference.partition(":")
        if kind == "vault":
            if self._vault is None:
                raise ConfigError("needs a value from a vault, and no vault is configured")
            return (await self._vault.get(name, fresh)).reveal()
        return (await asyncio.to_thread(self.stored, name)).reveal()

    def stored(self, name: str) -> Secret:
        """The secret in the store, else in the environment. Touches the disk."""
        found = self.store.get(name)
        if found is not None:
            return found
        variable = variable_of(name)
        value = self._env.get(variable)
        if value is None:
            raise ConfigError(
                f"needs the secret `{name}`, which is not set",
                hint=f"`callgate secret set {name}`, or set the environment variable {variable}.",
            )
        return Secret(value)

    def versions(self, names: Iterable[str]) -> dict[str, tuple[int, float]]:
        """What is stored under these names: version and time of each. Touches the disk."""
        wanted = set(names)
        return {row.name: (row.version, row.updated_at) for row in self.store.all() if row.name in wanted}

    async def aclose(self) -> None:
        if self._vault is not None:
            await self._vault.aclose()

    def _vault_token(self, reference: str) -> str:
        here = read_here(reference, self._base, self._env)
        return self.stored(stored_name(reference)).reveal() if here is None else here


def used_names(server: Server) -> set[str]:
    """The names in a server's ``secret:`` references."""
    values = (*server.env.values(), *server.headers.values(), server.auth.client_secret or "")
    return {stored_name(value) for value in values} - {""}


def users(servers: Mapping[str, Server]) -> dict[str, list[str]]:
    """The servers that use each secret."""
    found: dict[str, list[str]] = {}
    for name, server in servers.items():
        for secret in used_names(server):
            found.setdefault(secret, []).append(name)
    return found
