"""Agents that prove themselves by the certificate that they connected with (``tls_client_auth`` of RFC 8705)."""

from __future__ import annotations

from callgate.identity.certificate import Certificate
from callgate.identity.federation.workloads import Workloads
from callgate.identity.refusal import Refused

from .agents import Registered
from .request import Form

TLS_CLIENT_AUTH = "tls_client_auth"


async def certified_agent(
    certificate: Certificate | None, form: Form, authorization: bytes | None, workloads: Workloads
) -> Registered | None:
    """The agent whose X.509-SVID a request came with, and whose name it gives as ``client_id``.

    ``None`` where the request proves itself in another way, or not at all: then the other ways decide. The certificate
    is verified here too: the proxy may trust more authorities than the trust domain of the agent has.
    """
    if certificate is None or not certificate.der or not workloads.spiffe:
        return None
    if authorization is not None or "client_id" not in form or form.keys() & {"client_secret", "client_assertion"}:
        return None
    try:
        proven = await workloads.prove_by_certificate((certificate.der, *certificate.between))
    except Refused:
        return None
    return proven.agent if proven.agent.name == form["client_id"] else None
