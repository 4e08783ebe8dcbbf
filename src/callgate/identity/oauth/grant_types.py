"""The grants by their names, and who may use which."""

from __future__ import annotations

CODE = "authorization_code"
REFRESH = "refresh_token"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
CREDENTIALS = "client_credentials"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

#: Agents act for themselves, or in the place of somebody. People do not sign in with them.
OF_AGENTS = frozenset({CREDENTIALS, EXCHANGE, JWT_BEARER})
#: With applications people sign in. They have no rights of their own.
OF_APPS = frozenset({CODE, REFRESH, DEVICE, JWT_BEARER})
