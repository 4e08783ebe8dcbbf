"""What must hold of the applications of the configuration: said when the configuration is read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from callgate.config import App, OAuth
from callgate.errors import ConfigError, nearest

from . import redirects
from .apps import REGISTERED
from .clients import check_proof

_ID = re.compile(r"[\x21-\x7e]{1,256}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")


def check_apps(oauth: OAuth, agents: Iterable[str]) -> None:
    """Raises ConfigError for an application that could not work, or would be another one too."""
    for scope in oauth.scopes:
        if not _SCOPE.fullmatch(scope):
            raise ConfigError(f"`{scope}` is not a scope.", hint="A scope has no spaces, quotes or backslashes.")
    for name, app in oauth.apps.items():
        if not _ID.fullmatch(name) or name.startswith(REGISTERED) or name in set(agents):
            raise ConfigError(
                f"`{name}` cannot be the id of an application.",
                hint=f"Use one without spaces that no agent has and that does not begin with `{REGISTERED}`.",
            )
        check_proof("application", name, app)
        _check_redirects(name, app)
        for scope in app.scopes or ():
            if scope not in oauth.scopes:
                found = nearest(scope, oauth.scopes)
                hint = f"Did you mean `{found}`?" if found else "Name it in `oauth.scopes`, with words for people."
                raise ConfigError(f"The application `{name}` has the scope `{scope}`, which is not there.", hint=hint)
        if app.trusted and app.secret_sha256 is None and app.public_key is None and app.jwks_uri is None:
            _check_trust(name, app)


def _check_redirects(name: str, app: App) -> None:
    for uri in app.redirect_uris:
        if why := redirects.fault(uri, any_scheme=True):
            raise ConfigError(f"A redirect URI of the application `{name}` cannot be used: {why}.")


def _check_trust(name: str, app: App) -> None:
    """Without the consent page nothing but the redirect URI says who gets the code."""
    if not all(map(redirects.is_https, app.redirect_uris)):
        raise ConfigError(
            f"The application `{name}` is `trusted`, but any program on a person's machine could be it.",
            hint="Give it a secret or a key, or redirect URIs with https only, or leave the consent page.",
        )
