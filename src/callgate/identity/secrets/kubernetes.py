"""Secrets of a Kubernetes cluster, read from its API with the service account of this pod.

`kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1` and
`kubernetes.io/docs/tasks/run-application/access-api-from-pod`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callgate.config import Kubernetes, taken_apart
from callgate.egress import Response
from callgate.errors import ConfigError, UpstreamError, UpstreamUnavailable

from .api import Api, decoded, mapping
from .remembering import Remembered
from .value import Secret

CA_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
_TOKEN = re.compile(r"[\x21-\x7e]+")


class KubernetesClient:
    """Reads secrets and remembers them for a short time. The version of a value is the secret's ``resourceVersion``."""

    def __init__(self, settings: Kubernetes, env: Mapping[str, str]) -> None:
        self._settings = settings
        self._env = env
        self._secrets = Remembered(settings.cache, self._read)
        self._opened: Api | None = None

    async def get(self, reference: str, fresh: bool) -> Secret:
        """The value of ``k8s:NAMESPACE/NAME/KEY``; raises ``ConfigError`` or ``UpstreamError``."""
        namespace, name, key = taken_apart(reference)
        data, version = await self._secrets.get(f"{namespace}/secrets/{name}", fresh)
        value = data.get(key)
        if not isinstance(value, str) or not value:
            raise ConfigError(f"needs `{reference}`, and there is no key `{key}`")
        try:
            return Secret(base64.b64decode(value, validate=True).decode(), version)
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError(f"needs `{reference}`, and there is no text in the key `{key}`") from None

    async def aclose(self) -> None:
        await self._secrets.aclose()
        if self._opened is not None:
            await self._opened.aclose()

    async def _read(self, path: str) -> tuple[Mapping[str, Any], str]:
        namespace, _, name = path.partition("/secrets/")
        needs = f"needs `k8s:{namespace}/{name}`"
        api = self._api(needs)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        headers = {"authorization": f"Bearer {await self._token(needs)}"}
        try:
            response = await api.get(f"/api/v1/namespaces/{path}", headers, deadline)
        except UpstreamError as error:
            raise UpstreamUnavailable(f"{needs}, and the Kubernetes API {error.message}") from None
        return _content(response, needs)

    def _api(self, needs: str) -> Api:
        if self._opened is None:
            url, ca_file = self._settings.api, self._settings.ca_file
            if url is None:
                host, port = (self._env.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
                if not host or not port:
                    raise ConfigError(f"{needs}, and callgate is in no pod", hint="Set `secrets.kubernetes.api`.")
                url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
                ca_file = ca_file or CA_FILE
            self._opened = Api(url, ca_file, self._settings.timeout)
        return self._opened

    async def _token(self, needs: str) -> str:
        """The kubelet writes a new one into the file from time to time."""
        file = self._settings.token_file
        try:
            token = (await asyncio.to_thread(Path(file).read_text, "ascii")).strip()
        except (OSError, ValueError):
            token = ""
        if not _TOKEN.fullmatch(token):
            raise ConfigError(f"{needs}, and there is no token in {file}") from None
        return token


def _content(response: Response, needs: str) -> tuple[Mapping[str, Any], str]:
    """What a secret holds, and its version. Nothing of the answer is repeated in an error."""
    status = response.status
    if status == 404:
        raise ConfigError(f"{needs}, and there is no such secret")
    if status in (401, 403):
        hint = "Its service account needs a role with the verb `get` for this secret."
        raise ConfigError(f"{needs}, and the cluster does not let callgate read that (HTTP {status})", hint=hint)
    if status != 200:
        raise UpstreamUnavailable(f"{needs}, and the Kubernetes API cannot answer (HTTP {status})")
    answer = mapping(decoded(response))
    version = mapping(answer.get("metadata")).get("resourceVersion")
    if answer.get("kind") != "Secret" or not isinstance(version, str):
        raise ConfigError(f"{needs}, and the answer is not that of a Kubernetes API")
    return mapping(answer.get("data")), version
