"""X.509-SVIDs: whose certificate a client connected with (``X509-SVID.md``).

The certificate was shown in a TLS handshake, so its key was proved there; here it is decided what the certificate says.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from callgate.identity.refusal import Refused

from .spiffe import trust_domain_of

#: Longest chain that a client may send, and its largest certificate (bytes).
MOST, LARGEST = 8, 16 * 1024


def named_by(chain: Sequence[bytes]) -> str:
    """The SPIFFE id that the first certificate names. It is true only once ``verified_by`` has accepted the chain.

    Raises Refused for what is no X.509-SVID of a workload.
    """
    leaf = _read(chain)[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    if len(uris) != 1 or trust_domain_of(uris[0]) is None:  # section 2: exactly one URI
        raise Refused("not accepted", "the certificate does not name one SPIFFE id")
    _check_leaf(leaf)
    return uris[0]


def verified_by(chain: Sequence[bytes], authorities: Sequence[bytes], now: float) -> float:
    """Until when the first certificate of ``chain`` holds, which leads to one of the ``authorities`` (DER, of the trust
    domain that it names and of no other). ``now`` is seconds since the epoch. Raises Refused.
    """
    leaf, *between = _read(chain)
    try:
        roots = [x509.load_der_x509_certificate(each) for each in authorities]
        if not roots:
            raise Refused("not accepted", "the authorities of the trust domain are not known")
        policy = verification.PolicyBuilder().store(verification.Store(roots)).time(datetime.fromtimestamp(now, UTC))
        # The rules of the web are not those of SPIFFE, which has its own for the extensions (see _check_leaf).
        policy = policy.extension_policies(ca_policy=_authority(), ee_policy=verification.ExtensionPolicy.permit_all())
        policy.build_client_verifier().verify(leaf, between)
    except (verification.VerificationError, ValueError) as error:
        raise Refused("not accepted", f"the certificate does not hold: {ascii(str(error))[:200]}") from None
    return leaf.not_valid_after_utc.timestamp()


def _authority() -> verification.ExtensionPolicy:
    """An authority says that it is one and may sign certificates (section 4.2 and 4.3)."""

    def signs(policy: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("a certificate of the chain may not sign certificates")

    agnostic = verification.Criticality.AGNOSTIC
    rules = verification.ExtensionPolicy.permit_all()
    rules = rules.require_present(x509.BasicConstraints, agnostic, None)  # its `ca` is looked at anyway
    return rules.may_be_present(x509.KeyUsage, agnostic, signs)


def _check_leaf(leaf: x509.Certificate) -> None:
    """A workload signs no certificates, or it could make others up (sections 4.1 to 4.4)."""
    basic: Any = _extension(leaf, x509.BasicConstraints)
    usage: Any = _extension(leaf, x509.KeyUsage)
    purposes: Any = _extension(leaf, x509.ExtendedKeyUsage)
    if basic is not None and basic.ca:
        raise Refused("not accepted", "the certificate is an authority's")
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise Refused("not accepted", "the certificate is not for signatures alone")
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise Refused("not accepted", "the certificate is not for clients")


def _extension(leaf: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.ExtensionType | None:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError:
        raise Refused("not accepted", "an extension of the certificate cannot be read") from None


def _read(chain: Sequence[bytes]) -> list[x509.Certificate]:
    if not 0 < len(chain) <= MOST or any(len(each) > LARGEST for each in chain):
        raise Refused("not accepted", "no certificate, or more than anybody has")
    try:
        return [
            x509.load_pem_x509_certificate(each) if each.startswith(b"-----") else x509.load_der_x509_certificate(each)
            for each in chain
        ]
    except ValueError:
        raise Refused("not accepted", "not a certificate") from None
