"""1Password, through a Connect server: `developer.1password.com/docs/connect/api-reference`.

References are those of `developer.1password.com/docs/cli/secret-reference-syntax`, without attributes and files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from callgate.config import OnePassword, taken_apart
from callgate.egress import Response
from callgate.errors import ConfigError, UpstreamError, UpstreamUnavailable

from .api import Api, decoded, mapping
from .remembering import Remembered
from .value import Secret

_ID = re.compile(r"[a-z0-9]{26}")


class OnePasswordClient:
    """Reads items and remembers them for a short time."""

    def __init__(self, settings: OnePassword, read_token: Callable[[str], str]) -> None:
        self._settings = settings
        self._read_token = read_token
        self._api = Api(settings.url, settings.ca_file, settings.timeout)
        self._items = Remembered(settings.cache, self._read)

    async def get(self, reference: str, fresh: bool) -> Secret:
        """The value of ``op://VAULT/ITEM/FIELD`` or ``op://VAULT/ITEM/SECTION/FIELD``; raises ``ConfigError`` or
        ``UpstreamError``.
        """
        vault, item, section, field = taken_apart(reference)
        found = await self._items.get(f"{vault}/{item}", fresh)
        value = _field(found, section, field, f"needs `{reference}`")
        version = found.get("version")
        return Secret(value, version if isinstance(version, int) else 0)

    async def aclose(self) -> None:
        await self._items.aclose()
        await self._api.aclose()

    async def _read(self, path: str) -> dict[str, Any]:
        vault, _, item = path.partition("/")
        needs = f"needs `op://{path}`"
        token = await asyncio.to_thread(self._read_token, self._settings.token)
        asking = _Asking(self._api, token, asyncio.get_running_loop().time() + self._settings.timeout, needs)
        vaults = "/v1/vaults"
        items = f"{vaults}/{await asking.id_of(vaults, 'name', vault, 'vault')}/items"
        found = await asking.get(f"{items}/{await asking.id_of(items, 'title', item, 'item')}")
        if not isinstance(found, dict):
            raise ConfigError(f"{needs}, and the answer is not that of a Connect server")
        return found


class _Asking:
    """The requests for one item."""

    def __init__(self, api: Api, token: str, deadline: float, needs: str) -> None:
        self._api = api
        self._headers = {"authorization": f"Bearer {token}"}
        self._deadline = deadline
        self._needs = needs

    async def id_of(self, path: str, key: str, name: str, what: str) -> str:
        """The id of the one thing in a collection that has this name, or this id."""
        if _ID.fullmatch(name):
            return name
        # The characters of a name are those of references: there is no quote among them.
        wanted = quote(f'{key} eq "{name}"', safe="")
        found = await self.get(f"{path}?filter={wanted}")
        ids = [
            each["id"]
            for each in map(mapping, found if isinstance(found, list) else ())
            if str(each.get(key)).casefold() == name.casefold() and _ID.fullmatch(str(each.get("id")))
        ]
        if len(ids) != 1:
            how = "no" if not ids else "more than one"
            raise ConfigError(f"{self._needs}, and there is {how} {what} `{name}` that callgate may read")
        return str(ids[0])

    async def get(self, target: str) -> Any:
        """What is there. Nothing of an answer is repeated in an error."""
        try:
            response: Response = await self._api.get(target, self._headers, self._deadline)
        except UpstreamError as error:
            raise UpstreamUnavailable(f"{self._needs}, and the Connect server {error.message}") from None
        status = response.status
        if status == 404:
            raise ConfigError(f"{self._needs}, and the Connect server has nothing there")
        if status in (401, 403):
            raise ConfigError(f"{self._needs}, and the Connect server does not let callgate read that (HTTP {status})")
        if status != 200:
            raise UpstreamUnavailable(f"{self._needs}, and the Connect server cannot answer (HTTP {status})")
        return decoded(response)


def _field(item: dict[str, Any], section: str, field: str, needs: str) -> str:
    """The value of the one field with this label or id; without a section, one that is in none goes first."""
    listed = item.get("sections"), item.get("fields")
    sections, fields = ([mapping(each) for each in part or ()] for part in listed)
    within = {str(each.get("id")) for each in sections if _is(each, section)}
    found = [each for each in fields if _is(each, field)]
    if section:
        found = [each for each in found if _section(each) in within]
    elif outside := [each for each in found if not _section(each)]:
        found = outside
    if len(found) != 1:
        raise ConfigError(f"{needs}, and there is {'no' if not found else 'more than one'} such field")
    value = found[0].get("value")
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{needs}, and the field is empty")
    return value


def _is(thing: Any, name: str) -> bool:
    return name.casefold() in (str(thing.get("label")).casefold(), str(thing.get("id")).casefold())


def _section(field: Any) -> str:
    return str(mapping(field.get("section")).get("id") or "")
