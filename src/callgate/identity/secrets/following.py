"""From a reference to its value: the local store, the environment, and stores of others."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from callgate.config import STORES, Loaded, places, read_here, stored_name, variable_of
from callgate.config import Secrets as Settings
from callgate.config import Settings as Everything
from callgate.errors import ConfigError
from callgate.store import Database, SqliteHeld, SqliteSecrets

from .desktop import DesktopKeyring
from .held import Held
from .keys import VARIABLE, Keys
from .kubernetes import KubernetesClient
from .local import SecretStore
from .onepassword import OnePasswordClient
from .value import Secret
from .vault import VaultClient

T = TypeVar("T", bound=msgspec.Struct)

log = logging.getLogger("callgate.identity")

FILE_NAME = "secrets.key"
#: Seconds between two sweeps of what is held.
SWEEP_EVERY = 300.0


_NAMED = {"vault": "a vault", "op": "a 1Password Connect server"}


class Store(Protocol):
    """What one kind of references leads to."""

    async def get(self, reference: str, fresh: bool) -> Secret: ...

    async def aclose(self) -> None: ...


class Secrets:
    """What references lead to. ``aclose`` it at the end."""

    def __init__(self, loaded: Loaded, database: Database, env: Mapping[str, str] = os.environ) -> None:
        settings = loaded.settings.secrets
        file = Path(settings.key_file) if settings.key_file else loaded.data_dir / FILE_NAME
        self._keys = Keys(file, env.get(VARIABLE, ""))
        self._held = SqliteHeld(database)
        self.store = SecretStore(SqliteSecrets(database), self._keys, self._held)
        self._next_sweep = 0.0
        self._base = loaded.base
        self._env = env
        self._stores = self._opened(settings)

    def _opened(self, settings: Settings) -> dict[str, Store]:
        """The stores by kind of reference. None of them is asked for anything before somebody needs a value."""
        stores: dict[str, Store] = {
            "k8s": KubernetesClient(settings.kubernetes, self._env),
            "keyring": DesktopKeyring(),
        }
        if settings.vault is not None:
            stores["vault"] = VaultClient(settings.vault, self._token)
        if settings.onepassword is not None:
            stores["op"] = OnePasswordClient(settings.onepassword, self._token)
        return stores

    async def resolve(self, reference: str, fresh: bool) -> str:
        """The value of a reference of any kind, at this moment unless it may come from a cache (``fresh`` is false).

        Raises ``ConfigError``, or ``UpstreamError`` when a store cannot be reached.
        """
        kind, _, name = reference.partition(":")
        if kind == "secret":
            return (await asyncio.to_thread(self.stored, name)).reveal()
        if (store := self._stores.get(kind)) is not None:
            return (await store.get(reference, fresh)).reveal()
        if kind in STORES:
            raise ConfigError(f"needs a value from {_NAMED[kind]}, and none is configured")
        here = await asyncio.to_thread(read_here, reference, self._base, self._env)
        if here is None:
            raise ConfigError("holds a value itself where a reference is needed")
        return here

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

    def hold(self, kind: str, shape: type[T]) -> Held[T]:
        """A place for things of one kind that are held for somebody."""
        return Held(kind, shape, self._held, self._keys)

    async def sweep(self) -> None:
        """Drop what was held and has expired; at most every few minutes, however often this is asked for."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + SWEEP_EVERY
        try:
            await asyncio.to_thread(self._held.sweep, time.time())
        except ConfigError as why:  # a full disk: nothing that has expired is used, so it may stay for a while
            log.warning("what has expired could not be dropped: %s", why.message)

    def versions(self, names: Iterable[str]) -> dict[str, tuple[int, float]]:
        """What is stored under these names: version and time of each. Touches the disk."""
        wanted = set(names)
        return {row.name: (row.version, row.updated_at) for row in self.store.all() if row.name in wanted}

    async def aclose(self) -> None:
        for store in self._stores.values():
            await store.aclose()

    def _token(self, reference: str) -> str:
        """The token for a store, which does not stand in a store of its kind. Touches the disk."""
        here = read_here(reference, self._base, self._env)
        return self.stored(stored_name(reference)).reveal() if here is None else here


def users(settings: Everything) -> dict[str, list[str]]:
    """Who uses each secret of the local store: servers by their name, other parts of the configuration by their key."""
    found: dict[str, list[str]] = {}
    for path, value in places(settings):
        if name := stored_name(value):
            who = str(path[1]) if path[0] == "servers" else ".".join(map(str, path))
            if who not in found.setdefault(name, []):
                found[name].append(who)
    return found


def servers_using(settings: Everything) -> dict[str, list[str]]:
    """The servers that have to start anew when a secret of the local store changes."""
    found: dict[str, list[str]] = {}
    for path, value in places(settings):
        if path[0] == "servers" and (name := stored_name(value)) and path[1] not in found.setdefault(name, []):
            found[name].append(str(path[1]))
    return found
