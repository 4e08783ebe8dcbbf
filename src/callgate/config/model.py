"""The settings: one frozen tree. Field docstrings (``Meta.description``) are the configuration reference.

Sizes are bytes, durations seconds; in the file they may be written ``1MiB`` or ``30s``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from .units import BYTES, SECONDS

Text = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, **SECONDS)]
Bytes = Annotated[int, Meta(gt=0, **BYTES)]
_SHA256 = "^[0-9a-fA-F]{64}$"
Count = Annotated[int, Meta(gt=0)]


def doc(text: str, **more: Any) -> Meta:
    return Meta(description=text, **more)


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class UpstreamAuth(_Settings, frozen=True):
    """Whose identity a server at `url` is shown, and how. Without it `headers` are all that the server gets."""

    type: Annotated[
        Literal["none", "assertion", "exchange", "on_behalf_of", "client_credentials"],
        doc(
            "`assertion`: a short-lived token signed by callgate that names the caller. `exchange`: a token that the server's issuer gives for the caller (RFC 8693). `on_behalf_of`: the same in the way of Entra ID. `client_credentials`: callgate's own token of that issuer."
        ),
    ] = "none"
    audience: Annotated[
        str | None,
        doc(
            "`assertion`: the `aud` claim; default: the origin of `url`. Else the parameter `audience` of token requests."
        ),
    ] = None
    header: Annotated[
        str | None, doc("Header that carries the token as it is; default: `Authorization`, as a bearer token.")
    ] = None
    lifetime: Annotated[Seconds, doc("How long what callgate signs is valid.", le=300)] = 60.0
    subject_claim: Annotated[
        str | None,
        doc(
            "Claim of the caller's token that becomes `sub`, such as `email`. Default: issuer and subject of the caller, `ISSUER#SUBJECT`."
        ),
    ] = None
    token_endpoint: Annotated[str | None, doc("Where the server's issuer gives tokens.")] = None
    issuer: Annotated[
        str | None, doc("The server's issuer: `aud` of what callgate signs for it. Default: `token_endpoint`.")
    ] = None
    client_id: Annotated[str | None, doc("The client that callgate is at this issuer.")] = None
    client_secret: Annotated[
        str | None, doc("Its secret as a reference: `env:NAME`, `file:PATH` or `secret:NAME`.")
    ] = None
    client_auth: Annotated[
        # In the order of the MCP SDK: `typing` keeps one of two literals with the same values, whoever comes first.
        Literal["none", "client_secret_post", "client_secret_basic", "private_key_jwt"] | None,
        doc(
            "How the client proves itself. Default: `client_secret_basic` with a `client_secret`, else `private_key_jwt` with callgate's own key."
        ),
    ] = None
    scope: Annotated[tuple[str, ...], doc("Scopes to ask for.")] = ()
    resource: Annotated[
        str | None,
        doc(
            "The parameter `resource` of token requests (RFC 8707); empty: none. Default: `url`, and none for `on_behalf_of`, which Entra ID would refuse."
        ),
    ] = None
    subject_token: Annotated[
        Literal["assertion", "caller"] | None,
        doc(
            "What is exchanged: an assertion by callgate, or the caller's own token, which goes to the token endpoint and nowhere else. Default: `assertion`; `on_behalf_of`: `caller`."
        ),
    ] = None
    subject_issuers: Annotated[
        tuple[str, ...], doc("With `subject_token: caller`: the issuers whose tokens may go to the token endpoint.")
    ] = ()


class Server(_Settings, frozen=True):
    """One upstream server: ``command`` (a stdio child process) or ``url`` (Streamable HTTP or HTTP+SSE), never both."""

    command: Annotated[str | None, doc("Program to start; speaks MCP over stdin and stdout.")] = None
    args: Annotated[tuple[str, ...], doc("Arguments of the program. No shell is involved.")] = ()
    env: Annotated[
        dict[str, str],
        doc(
            "Environment of the program; values may be references: `secret:NAME`, `vault:PATH#FIELD`, `env:NAME`, `file:PATH`."
        ),
    ] = field(default_factory=dict)
    cwd: Annotated[str | None, doc("Working directory of the program, relative to the configuration file.")] = None
    url: Annotated[str | None, doc("URL of a Streamable HTTP or HTTP+SSE server.")] = None
    type: Annotated[
        Literal["stdio", "http", "streamable-http", "sse"] | None,
        doc(
            "As other clients write it; must agree with `command` or `url`. `sse`: `url` is the event stream of a server of HTTP+SSE (2024-11-05); without it that is found out."
        ),
    ] = None
    headers: Annotated[
        dict[str, str],
        doc(
            "Headers for every request to `url`; values may be references: `secret:NAME`, `vault:PATH#FIELD`, `env:NAME`, `file:PATH`."
        ),
    ] = field(default_factory=dict)
    disabled: Annotated[bool, doc("Keep the entry but do not start or list the server.")] = False
    isolation: Annotated[
        Literal["auto", "shared", "principal", "session"],
        doc(
            "Who shares a process or session: everybody, the callers of one principal, or the calls of one client session. `auto`: everybody where the server keeps no state (modern servers, HTTP servers without session ids), else one client session. Callers that share one with everybody cannot be asked anything by a legacy server."
        ),
    ] = "auto"
    protocol: Annotated[
        Literal["auto", "modern", "legacy"], doc("Protocol era of the server; `auto` detects it once.")
    ] = "auto"
    connect_timeout: Annotated[Seconds, doc("Longest time for start, connection and handshake.")] = 20.0
    call_timeout: Annotated[
        Seconds, doc("Longest time for one call, without the time that its questions are open.")
    ] = 60.0
    max_concurrency: Annotated[Count, doc("Calls in flight at the server at once.")] = 64
    max_queue: Annotated[int, doc("Calls that may wait for a free place; the next one is refused.", ge=0)] = 256
    max_message: Annotated[Bytes, doc("Largest message accepted from the server.")] = 16 * 1024 * 1024
    idle_timeout: Annotated[Seconds, doc("A caller's own process or session ends after this time without a call.")] = (
        1800.0
    )
    max_lifetime: Annotated[
        Seconds | None,
        doc(
            "A caller's own process or session is replaced after this time, not in the middle of a call; default: never."
        ),
    ] = None
    max_links_per_principal: Annotated[
        Count, doc("Own processes or sessions of one principal; the one idle for the longest time makes place.")
    ] = 32
    ca_file: Annotated[str | None, doc("PEM file with the certificate authorities to trust for `url`.")] = None
    proxy: Annotated[
        str | None, doc("HTTP proxy for `url`; default: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the environment.")
    ] = None
    auth: Annotated[UpstreamAuth, doc("Whose identity `url` is shown.")] = field(default_factory=UpstreamAuth)


class VirtualServer(_Settings, frozen=True):
    """A named selection of tools, prompts and resources, served at `/mcp/{name}`."""

    tools: Annotated[tuple[str, ...], doc("Globs over `server/tool`.", min_length=1)]
    prompts: Annotated[tuple[str, ...], doc("Globs over `server/prompt`. Without any, no prompt is shown.")] = ()
    resources: Annotated[
        tuple[str, ...],
        doc(
            "Globs over `server/uri` (the URI or URI template as the server knows it). Without any, no resource is shown."
        ),
    ] = ()
    description: Annotated[str, doc("Shown to clients as instructions.")] = ""


class Key(_Settings, frozen=True):
    """A static key. Only the SHA-256 of the key is stored."""

    subject: Annotated[Text, doc("Who holds the key, such as `agent:ci`.")]
    sha256: Annotated[str, doc("SHA-256 of the key, in hexadecimal.", pattern=_SHA256)]
    roles: Annotated[tuple[str, ...], doc("Roles of the holder.")] = ()
    groups: Annotated[tuple[str, ...], doc("Groups of the holder.")] = ()


class Issuer(_Settings, frozen=True):
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


class Agent(_Settings, frozen=True):
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
        Annotated[str, Meta(pattern=_SHA256)] | None,
        doc("SHA-256 of the agent's secret, in hexadecimal; `callgate agent secret` makes one."),
    ] = None
    public_key: Annotated[str | None, doc("Public key (PEM) of an agent that signs assertions.")] = None
    jwks_uri: Annotated[str | None, doc("Where such an agent publishes its public keys.")] = None
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


class OAuth(_Settings, frozen=True):
    """The token service."""

    issuer: Annotated[str | None, doc("The `iss` of its tokens. Default: `public_url`.")] = None
    token_ttl: Annotated[float, doc("Longest life of a token.", gt=0, le=3600, **SECONDS)] = 300.0
    key_rotation: Annotated[float, doc("How long one key signs.", ge=86400, **SECONDS)] = 30 * 86400.0
    max_depth: Annotated[Count, doc("Most agents in one delegation chain.")] = 6
    repeat_actors: Annotated[bool, doc("Let the same agent occur twice in one chain.")] = False


class Identity(_Settings, frozen=True):
    anonymous: Annotated[
        bool | None,
        doc(
            "Accept callers without credentials as `anonymous`. Default: only on a loopback listener without `keys`, `jwt` and `oauth`. Never on another listener."
        ),
    ] = None
    keys: Annotated[tuple[Key, ...], doc("Static keys for agents that have nothing better.")] = ()
    jwt: Annotated[tuple[Issuer, ...], doc("Identity providers whose tokens are accepted.")] = ()
    oauth: Annotated[OAuth | None, doc("Issue tokens to the agents of `agents`. Default: no.")] = None
    agents: Annotated[dict[str, Agent], doc("Agents by name; the clients of the token service.")] = field(
        default_factory=dict
    )


class Audit(_Settings, frozen=True):
    durability: Annotated[
        Literal["strict", "normal"],
        doc(
            "`strict`: an answer leaves only after its record is on disk. `normal`: records follow within milliseconds."
        ),
    ] = "normal"
    arguments: Annotated[
        Literal["redacted", "full", "digest"],
        doc(
            "What is kept of a call's arguments besides their SHA-256: all but values of secret-looking names, everything, or nothing."
        ),
    ] = "redacted"
    max_arguments: Annotated[Bytes, doc("Longer arguments are cut in the record (the digest covers all of them).")] = (
        4096
    )
    queue: Annotated[
        Count,
        doc("Records that may wait for the writer. When full, `strict` refuses calls, `normal` drops and counts."),
    ] = 50_000
    retention_days: Annotated[Count | None, doc("Records older than this are deleted; default: never.")] = None


class Vault(_Settings, frozen=True):
    """A HashiCorp Vault or OpenBao with a key/value engine of version 2, for references `vault:PATH#FIELD`."""

    url: Annotated[Text, doc("Its address, such as `https://vault.example.org:8200`.")]
    mount: Annotated[Text, doc("Path where the key/value engine is mounted.")] = "secret"
    token: Annotated[
        str | None, doc("The token as a reference: `env:NAME`, `file:PATH` or `secret:NAME`. Or set `role`.")
    ] = None
    role: Annotated[str | None, doc("Role to sign in as with the Kubernetes service account of this pod.")] = None
    auth_mount: Annotated[Text, doc("Path where the Kubernetes auth method is mounted.")] = "kubernetes"
    jwt_file: Annotated[Text, doc("The service account's token, for `role`.")] = (
        "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )
    namespace: Annotated[str | None, doc("Namespace in which all of this is.")] = None
    ca_file: Annotated[str | None, doc("PEM file with the certificate authorities to trust for `url`.")] = None
    timeout: Annotated[Seconds, doc("Longest time for one request to it.")] = 5.0
    cache: Annotated[
        float,
        doc("How long a value is used for further links of a server before it is asked for again.", ge=0, **SECONDS),
    ] = 30.0


class Secrets(_Settings, frozen=True):
    key_file: Annotated[
        str | None,
        doc(
            "The key of the local store, in a file of its own that only its owner may read. Default: `secrets.key` in the data directory; `CALLGATE_SECRETS_KEY` comes before both."
        ),
    ] = None
    vault: Annotated[Vault | None, doc("Where `vault:` references lead. Default: nowhere.")] = None


class Limits(_Settings, frozen=True):
    max_body: Annotated[Bytes, doc("Largest request body; more is answered 413.")] = 4 * 1024 * 1024
    max_header_bytes: Annotated[Bytes, doc("Largest sum of request line and headers; more is answered 431.")] = (
        32 * 1024
    )
    max_headers: Annotated[Count, doc("Most request headers; more is answered 431.")] = 100
    max_depth: Annotated[Count, doc("Deepest nesting of JSON in a request.")] = 64
    header_timeout: Annotated[Seconds, doc("Longest time for the headers of a request to arrive; then 408.")] = 10.0
    body_timeout: Annotated[Seconds, doc("Longest time for the body of a request to arrive; then 408.")] = 30.0
    idle_timeout: Annotated[Seconds, doc("A connection without a request is closed after this time.")] = 75.0
    max_connections: Annotated[Count, doc("Open client connections; more are answered 503.")] = 4096
    max_streams: Annotated[Count, doc("Open event streams of one principal.")] = 64
    max_sessions: Annotated[Count, doc("Legacy sessions of one principal; the least recently used one ends first.")] = (
        1000
    )
    session_ttl: Annotated[Seconds, doc("A legacy session ends after this time without a request.")] = 3600.0
    max_calls: Annotated[Count, doc("Calls of one principal that are in flight; more are refused.")] = 1024
    max_tasks: Annotated[Count, doc("Tasks of one principal that callgate remembers; more may not run.")] = 256
    task_ttl: Annotated[Seconds, doc("Longest life of a task; then its id is not known any more.")] = 86400.0
    max_parked: Annotated[
        Count, doc("Calls of one principal that are kept at legacy servers while the client answers a question.")
    ] = 64
    parked_ttl: Annotated[
        Seconds, doc("How long a client of 2026-07-28 may take to come back with the answer to a question.")
    ] = 600.0


class Settings(_Settings, frozen=True):
    """The whole of `callgate.yaml`."""

    listen: Annotated[str, doc("Address of the gateway listener.")] = "127.0.0.1:8080"
    admin_listen: Annotated[str, doc("Address of the admin listener: metrics and the admin API. Keep it private.")] = (
        "127.0.0.1:8081"
    )
    public_url: Annotated[
        str | None,
        doc(
            "URL under which clients reach the gateway listener, such as `https://mcp.example.org`. Default: the listener's own."
        ),
    ] = None
    data_dir: Annotated[str | None, doc("Where state is kept. Default: `callgate` in the XDG data directory.")] = None
    servers: Annotated[dict[str, Server], doc("Upstream servers by name.")] = field(default_factory=dict)
    virtual_servers: Annotated[dict[str, VirtualServer], doc("Named selections of tools, prompts and resources.")] = (
        field(default_factory=dict)
    )
    identity: Annotated[Identity, doc("Who may come in.")] = field(default_factory=Identity)
    policy: Annotated[
        str | tuple[str, ...] | dict[str, Any] | None, doc("A policy file, a list of files, or the policy itself.")
    ] = None
    audit: Annotated[Audit, doc("The record of every call.")] = field(default_factory=Audit)
    secrets: Annotated[Secrets, doc("Where `secret:` and `vault:` references lead.")] = field(default_factory=Secrets)
    limits: Annotated[Limits, doc("Bounds on what clients may send and hold.")] = field(default_factory=Limits)
    allowed_hosts: Annotated[
        tuple[str, ...], doc("Names (`host` or `host:port`) accepted in the Host header besides the listener's own.")
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        doc("Origins of web pages that may call besides the listener's own, such as `https://app.example.org`."),
    ] = ()
    list_page_size: Annotated[Count, doc("Entries on one page of a list.")] = 1000
    startup_wait: Annotated[
        float,
        doc(
            "How long `up` waits for servers that were never seen before, before it says that it is ready.",
            ge=0,
            **SECONDS,
        ),
    ] = 5.0
    watch: Annotated[bool, doc("Pick up changes of the configuration and policy files while running.")] = True
    log_level: Annotated[Literal["debug", "info", "warning", "error"], doc("Least level written to the log.")] = "info"
