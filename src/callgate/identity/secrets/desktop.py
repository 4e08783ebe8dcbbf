"""The keyring of the operating system, for gateways on somebody's own machine (extra ``keyring``)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from callgate.config import taken_apart
from callgate.errors import ConfigError, UpstreamTimeout

from .value import Secret

#: Seconds for a keyring to answer; a locked one asks its owner first.
PATIENCE = 60.0


class DesktopKeyring:
    """Asks for every value: the keyring is on this machine, and its owner may lock it.

    In a thread of its own: a keyring that waits for its owner must not take the threads of everything else.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "keyring")

    async def get(self, reference: str, fresh: bool) -> Secret:
        """The value of ``keyring:SERVICE/USER``; raises ``ConfigError`` or ``UpstreamError``."""
        service, user = taken_apart(reference)
        try:
            async with asyncio.timeout(PATIENCE):
                value = await asyncio.get_running_loop().run_in_executor(self._thread, _ask, reference, service, user)
        except TimeoutError:
            raise UpstreamTimeout(f"needs `{reference}`, and the keyring did not answer in time") from None
        if not value:
            hint = f"`keyring set {service} {user}` puts a value there."
            raise ConfigError(f"needs `{reference}`, and the keyring has nothing there", hint=hint)
        return Secret(value)

    async def aclose(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _ask(reference: str, service: str, user: str) -> str | None:
    try:
        import keyring
        from keyring.errors import NoKeyringError
    except ImportError:
        hint = "`pip install 'callgate[keyring]'`, or use another kind of reference."
        raise ConfigError(f"needs `{reference}`, and callgate was installed without keyrings", hint=hint) from None
    try:
        return keyring.get_password(service, user)
    except NoKeyringError:
        hint = "Keyrings are for desktops: on a server use `secret:NAME`, `vault:`, `k8s:` or `op://`."
        raise ConfigError(f"needs `{reference}`, and this machine has no keyring", hint=hint) from None
    except Exception as error:  # a backend's own errors may have any type, and may show what it read
        raise ConfigError(
            f"needs `{reference}`, and the keyring cannot be read ({type(error).__name__})",
            hint="Is it locked?",
        ) from None
