"""The settings under `identity`: who may come in, and how they say who they are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import field

from .kinds import Count, Seconds, Section, Sha256, Text, doc
from .units import SECONDS


class Key(Section, frozen=True):
    """A static key. Only the SHA-256 of the key is stored."""

    subject: Annotated[Text, doc("Who holds the key, such as `agent:ci`.")]
    sha256: Annotated[Sha256, doc("SHA-256 of the key, in hexadecimal.")]
    roles: Annotated[tuple[str, ...], doc("Roles of the holder.")] = ()
    groups: Annotated[tuple[str, ...], doc("Groups of the holder.")] = ()


class Issuer(Section, frozen=True):
    """Tokens (JWT) of one identity provider."""

    issuer: Annotated[Text, doc("The exact `iss` claim.")]
    audience: Annotated[str | tuple[str, ...], doc("Accepted `aud` values.")]
    jwks_uri: Annotated[str | None, doc("Where the signing keys are published.")] = None
    jwks_file: Annotated[str | None, doc("The signing keys as a file, for networks without the provider.")] = None
    algorithms: Annotated[tuple[str, ...], doc("Accepted signature algorithms.", min_length=1)] = (
        "RS256",
        "ES256",
        "EdDSA",
        "PS256",
    )
    subject_claim: Annotated[str, doc("Claim that names the caller.")] = "sub"
    roles_claim: Annotated[str, doc("Claim that lists the roles; a path such as `realm_access.roles` is allowed.")] = (
        "roles"
    )
    groups_claim: Annotated[str, doc("Claim that lists the groups.")] = "groups"
    leeway: Annotated[float, doc("Tolerated clock difference.", ge=0, **SECONDS)] = 30.0
    jwks_ttl: Annotated[Seconds, doc("How long fetched keys are used before they are fetched again.")] = 600.0


class Provider(Section, frozen=True):
    """An identity provider (OpenID Connect) at which people sign in with a browser."""

    issuer: Annotated[Text, doc("Its issuer; the discovery document below it says everything else.")]
    client_id: Annotated[
        Text, doc("The client that callgate is there, with the redirect URI `PUBLIC_URL/oauth/callback`.")
    ]
    client_secret: Annotated[
        str | None, doc("Its secret as a reference: `env:NAME`, `file:PATH` or `secret:NAME`.")
    ] = None
    client_auth: Annotated[
        Literal["none", "client_secret_post", "client_secret_basic", "private_key_jwt"] | None,
        doc(
            "How callgate proves itself. Default: `client_secret_basic` with a `client_secret`, else `none` (PKCE alone). `private_key_jwt`: with callgate's own key, published at `/oauth/jwks`."
        ),
    ] = None
    title: Annotated[str, doc("What the button says; default: the name of the entry.")] = ""
    scopes: Annotated[tuple[str, ...], doc("Scopes to ask for; `openid` is always among them.")] = (
        "openid",
        "profile",
        "email",
    )
    algorithms: Annotated[tuple[str, ...], doc("Accepted signature algorithms.", min_length=1)] = (
        "RS256",
        "ES256",
        "EdDSA",
        "PS256",
    )
    subject_claim: Annotated[str, doc("Claim that names the person.")] = "sub"
    roles_claim: Annotated[str, doc("Claim that lists the roles; a path such as `realm_access.roles` is allowed.")] = (
        "roles"
    )
    groups_claim: Annotated[str, doc("Claim that lists the groups.")] = "groups"
    role_map: Annotated[
        dict[str, tuple[str, ...]],
        doc("Roles by a role or group of the provider. Without it its roles are taken over as they are."),
    ] = field(default_factory=dict)
    required_claims: Annotated[
        dict[str, str],
        doc("Claims that must have these values, such as `hd: example.org`: a public provider signs in everybody."),
    ] = field(default_factory=dict)
    id_jag: Annotated[
        bool, doc("Accept identity assertions (ID-JAG) of this issuer: enterprise-managed authorization.")
    ] = False
    id_jag_reuse: Annotated[
        bool, doc("Let an identity assertion be used more than once while it holds, as clients of some providers do.")
    ] = False


class Federation(Section, frozen=True):
    """An issuer of workload identities: a cloud, a CI system, a Kubernetes cluster, a SPIFFE trust domain."""

    issuer: Annotated[
        str, doc("The exact `iss` claim. SPIFFE needs none: its tokens name the trust domain in `sub`.")
    ] = ""
    audience: Annotated[
        tuple[str, ...],
        doc(
            "Accepted `aud` values; a token that is for anybody else too is refused. Default: the token endpoint and the issuer of the token service."
        ),
    ] = ()
    jwks_uri: Annotated[
        str | None, doc("Where the signing keys are published. Default: by the discovery of `issuer`.")
    ] = None
    jwks_file: Annotated[str | None, doc("The signing keys as a file (also a SPIFFE bundle).")] = None
    ca_file: Annotated[str | None, doc("PEM file with the authorities to trust for `jwks_uri`.")] = None
    token_file: Annotated[
        str | None, doc("A bearer token for `jwks_uri`, read anew for each request: a Kubernetes API server wants one.")
    ] = None
    trust_domain: Annotated[str | None, doc("SPIFFE trust domain, such as `example.org`.")] = None
    workload_api: Annotated[
        str | None,
        doc(
            "SPIFFE Workload API that gives the bundle, such as `unix:///run/spire/agent.sock`. Needs the extra `callgate[spiffe]`."
        ),
    ] = None
    longest: Annotated[
        float,
        doc(
            "A token that holds for longer than this is refused. Managed identities of Azure give 24 hours.",
            gt=0,
            le=86400,
            **SECONDS,
        ),
    ] = 3600.0
    algorithms: Annotated[tuple[str, ...], doc("Accepted signature algorithms.", min_length=1)] = (
        "RS256",
        "ES256",
        "EdDSA",
        "PS256",
    )


class Workload(Section, frozen=True):
    """Who an agent is at an issuer of `identity.federation`: it needs no secret of callgate's."""

    issuer: Annotated[Text, doc("Name of the entry of `identity.federation`.")]
    subject: Annotated[
        Text,
        doc(
            "Glob over the `sub` claim, such as `system:serviceaccount:team:planner` or `spiffe://example.org/planner`. `*` does not match `/` or `:`."
        ),
    ]
    claims: Annotated[
        dict[str, str], doc("Other claims that must have these values, such as `repository: org/app`.")
    ] = field(default_factory=dict)


class App(Section, frozen=True):
    """An application with which people sign in: an MCP client that is registered beforehand."""

    redirect_uris: Annotated[
        tuple[str, ...],
        doc("Where answers may go, compared character by character; of loopback addresses the port is free."),
    ] = ()
    title: Annotated[str, doc("Its name on the consent page; default: the name of the entry.")] = ""
    secret_sha256: Annotated[Sha256 | None, doc("SHA-256 of its secret; without one it is a public client (PKCE).")] = (
        None
    )
    public_key: Annotated[str | None, doc("Public key (PEM) of an application that signs assertions.")] = None
    jwks_uri: Annotated[str | None, doc("Where such an application publishes its public keys.")] = None
    scopes: Annotated[
        tuple[str, ...] | None, doc("Scopes that its tokens may have; default: all of `oauth.scopes`.")
    ] = None
    audiences: Annotated[
        tuple[str, ...], doc("Endpoints that its tokens may be for, as paths or globs of paths.", min_length=1)
    ] = ("*",)
    trusted: Annotated[bool, doc("Skip the consent page: the organisation's own application.")] = False
    status: Annotated[
        Literal["active", "suspended"], doc("A suspended application gets no token, and its tokens are refused.")
    ] = "active"


class Agent(Section, frozen=True):
    """An agent: a client of the token service, and the subject `agent:NAME`. It proves itself by one of
    `secret_sha256`, `public_key` and `jwks_uri`.
    """

    owner: Annotated[str, doc("Who answers for the agent: a person or a team.")] = ""
    roles: Annotated[tuple[str, ...], doc("Roles of the agent, looked up at every decision.")] = ()
    status: Annotated[
        Literal["active", "suspended"],
        doc("A suspended agent gets no token, and tokens with it in their chain are refused at once."),
    ] = "active"
    secret_sha256: Annotated[
        Sha256 | None,
        doc("SHA-256 of the agent's secret, in hexadecimal; `callgate agent secret` makes one."),
    ] = None
    public_key: Annotated[str | None, doc("Public key (PEM) of an agent that signs assertions.")] = None
    jwks_uri: Annotated[str | None, doc("Where such an agent publishes its public keys.")] = None
    workloads: Annotated[
        tuple[Workload, ...], doc("Who the agent is at issuers of `federation`; beside or instead of a secret or key.")
    ] = ()
    audiences: Annotated[
        tuple[str, ...],
        doc(
            "Endpoints that its tokens may be for, as paths or globs of paths; `/` is the gateway as a whole.",
            min_length=1,
        ),
    ] = ("/mcp",)
    scopes: Annotated[tuple[str, ...], doc("Scopes that its tokens may have.")] = ()
    acts_for: Annotated[
        tuple[str, ...],
        doc("Issuers of `identity.jwt` for whose users it may act, also where their tokens do not say so (`may_act`)."),
    ] = ()
    may_delegate_to: Annotated[
        tuple[str, ...], doc("Agents that may exchange its tokens for tokens of their own (delegation).")
    ] = ()


class OAuth(Section, frozen=True):
    """The token service."""

    issuer: Annotated[str | None, doc("The `iss` of its tokens. Default: `public_url`.")] = None
    token_ttl: Annotated[float, doc("Longest life of a token.", gt=0, le=3600, **SECONDS)] = 300.0
    key_rotation: Annotated[float, doc("How long one key signs.", ge=86400, **SECONDS)] = 30 * 86400.0
    max_depth: Annotated[Count, doc("Most agents in one delegation chain.")] = 6
    repeat_actors: Annotated[bool, doc("Let the same agent occur twice in one chain.")] = False
    scopes: Annotated[
        dict[str, str], doc("Scopes that people's tokens may have, with the words that the consent page has for each.")
    ] = field(default_factory=dict)
    apps: Annotated[
        dict[str, App],
        doc("Applications with which people sign in, by client id; besides those of `client_documents`."),
    ] = field(default_factory=dict)
    client_documents: Annotated[
        tuple[str, ...],
        doc(
            "Hosts whose client metadata documents are accepted (the client id is the URL of the document), as globs; empty: none."
        ),
    ] = ("*",)
    registration: Annotated[
        bool, doc("Let anybody register an application (RFC 7591), for clients that know no other way.")
    ] = False
    refresh_ttl: Annotated[Seconds, doc("An application that was not used for so long has to sign in again.")] = (
        14 * 86400.0
    )
    session_ttl: Annotated[Seconds, doc("How long a browser stays signed in.")] = 8 * 3600.0
    dpop: Annotated[
        Literal["accepted", "required"],
        doc(
            "`required`: only tokens that are bound to a key (RFC 9449) or to a certificate (RFC 8705) of the client are issued, and accepted."
        ),
    ] = "accepted"
    dpop_nonce: Annotated[
        bool, doc("Proofs of a key must carry a nonce of callgate's, so that none can be made in advance.")
    ] = False
    required_scopes: Annotated[
        dict[str, tuple[str, ...]],
        doc(
            "Scopes that a token of this service needs, by globs over `server/tool`; a call needs those of all that match."
        ),
    ] = field(default_factory=dict)
    scope_includes: Annotated[
        dict[str, tuple[str, ...]], doc("Scopes that a broader scope stands for, such as `git:admin: [git:write]`.")
    ] = field(default_factory=dict)


class ClientCertificates(Section, frozen=True):
    """Certificates with which clients connect to a proxy that ends TLS, and which it passes on in a header."""

    proxies: Annotated[
        tuple[str, ...],
        doc(
            "Addresses and networks (`10.1.0.0/16`) of these proxies. From anybody else the header means nothing.",
            min_length=1,
        ),
    ]
    header: Annotated[
        Literal["Client-Cert", "X-Forwarded-Client-Cert"],
        doc(
            "`Client-Cert` is that of RFC 9440, `X-Forwarded-Client-Cert` that of Envoy (`SANITIZE_SET`, with `cert: true`). The proxy must remove what clients send under this name."
        ),
    ] = "Client-Cert"


class Identity(Section, frozen=True):
    anonymous: Annotated[
        bool | None,
        doc(
            "Accept callers without credentials as `anonymous`. Default: only on a loopback listener without `keys`, `jwt` and `oauth`. Never on another listener."
        ),
    ] = None
    keys: Annotated[tuple[Key, ...], doc("Static keys for agents that have nothing better.")] = ()
    jwt: Annotated[tuple[Issuer, ...], doc("Identity providers whose tokens are accepted.")] = ()
    oauth: Annotated[OAuth | None, doc("Issue tokens to the agents of `agents`. Default: no.")] = None
    providers: Annotated[
        dict[str, Provider], doc("Identity providers at which people sign in with a browser, by name. Needs `oauth`.")
    ] = field(default_factory=dict)
    federation: Annotated[
        dict[str, Federation], doc("Issuers of workload identities, by name; `workloads` of the agents refer to them.")
    ] = field(default_factory=dict)
    client_certificates: Annotated[
        ClientCertificates | None,
        doc("Bind tokens to the certificates of clients (RFC 8705), and let agents prove themselves by them."),
    ] = None
    agents: Annotated[dict[str, Agent], doc("Agents by name; the clients of the token service.")] = field(
        default_factory=dict
    )
