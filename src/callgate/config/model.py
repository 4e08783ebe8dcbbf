"""The settings: one frozen tree. Field docstrings (``Meta.description``) are the configuration reference.

Sizes are bytes, durations seconds; in the file they may be written ``1MiB`` or ``30s``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import field

from .kinds import Bytes, Count, Seconds, Section, Text, doc
from .model_auth import UpstreamAuth
from .model_guard import Guard
from .model_identity import Identity
from .model_policy import PolicyLayer, ToolClass
from .model_quotas import Price, Quota, QuotasStore
from .units import SECONDS


class Server(Section, frozen=True):
    """One upstream server: ``command`` (a stdio child process) or ``url`` (Streamable HTTP or HTTP+SSE), never both."""

    command: Annotated[str | None, doc("Program to start; speaks MCP over stdin and stdout.")] = None
    args: Annotated[tuple[str, ...], doc("Arguments of the program. No shell is involved.")] = ()
    env: Annotated[
        dict[str, str],
        doc(
            "Environment of the program; values may be references: `secret:NAME`, `vault:PATH#FIELD`, `k8s:NAMESPACE/NAME/KEY`, `op://VAULT/ITEM/FIELD`, `keyring:SERVICE/USER`, `env:NAME`, `file:PATH`."
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
            "Headers for every request to `url`; values may be references: `secret:NAME`, `vault:PATH#FIELD`, `k8s:NAMESPACE/NAME/KEY`, `op://VAULT/ITEM/FIELD`, `keyring:SERVICE/USER`, `env:NAME`, `file:PATH`."
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
    annotations: Annotated[
        Literal["auto", "trusted", "ignored"],
        doc(
            "Whether policy believes what the server says of its tools (`readOnlyHint` …). `ignored`: only `classify` counts. `auto`: believed while `listen` and the host of `public_url` are loopback addresses, where the user of this machine runs the servers."
        ),
    ] = "auto"
    classify: Annotated[
        dict[str, ToolClass],
        doc("What the operator says of tools, by globs over their names; a later glob comes first."),
    ] = field(default_factory=dict)


class VirtualServer(Section, frozen=True):
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


class Audit(Section, frozen=True):
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


class Vault(Section, frozen=True):
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


class Kubernetes(Section, frozen=True):
    """The API of a Kubernetes cluster, for references `k8s:NAMESPACE/NAME/KEY`. In a pod nothing has to be set."""

    api: Annotated[
        str | None,
        doc("Address of the API server, such as `https://10.0.0.1:6443`. Default: that of this pod's cluster."),
    ] = None
    ca_file: Annotated[
        str | None,
        doc("PEM file with the authorities to trust. Default: the pod's; with `api`: those of the system."),
    ] = None
    token_file: Annotated[
        Text, doc("The service account's token, read anew for each request. It needs the right to `get` the secrets.")
    ] = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    timeout: Annotated[Seconds, doc("Longest time for one request to it.")] = 5.0
    cache: Annotated[
        float,
        doc("How long a value is used for further links of a server before it is asked for again.", ge=0, **SECONDS),
    ] = 30.0


class OnePassword(Section, frozen=True):
    """A 1Password Connect server, for references `op://VAULT/ITEM/FIELD`."""

    url: Annotated[Text, doc("Its address, such as `https://connect.example.org`.")]
    token: Annotated[Text, doc("The access token as a reference: `env:NAME`, `file:PATH` or `secret:NAME`.")]
    ca_file: Annotated[str | None, doc("PEM file with the certificate authorities to trust for `url`.")] = None
    timeout: Annotated[Seconds, doc("Longest time for one value.")] = 5.0
    cache: Annotated[
        float,
        doc("How long a value is used for further links of a server before it is asked for again.", ge=0, **SECONDS),
    ] = 30.0


class Secrets(Section, frozen=True):
    key_file: Annotated[
        str | None,
        doc(
            "The key of the local store, in a file of its own that only its owner may read. Default: `secrets.key` in the data directory; `CALLGATE_SECRETS_KEY` comes before both."
        ),
    ] = None
    vault: Annotated[Vault | None, doc("Where `vault:` references lead. Default: nowhere.")] = None
    kubernetes: Annotated[Kubernetes, doc("Where `k8s:` references lead.")] = field(default_factory=Kubernetes)
    onepassword: Annotated[OnePassword | None, doc("Where `op://` references lead. Default: nowhere.")] = None


class Egress(Section, frozen=True):
    """Where URLs that strangers name may lead: documents of clients, authorization servers of servers."""

    allow_private: Annotated[
        tuple[str, ...],
        doc(
            "Networks (`10.1.0.0/16`), addresses and hosts (`idp.corp.example`, `*.corp.example`) that they may lead to although they are not public."
        ),
    ] = ()


class Limits(Section, frozen=True):
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


class Settings(Section, frozen=True):
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
        str | tuple[str | PolicyLayer, ...] | dict[str, Any] | None,
        doc(
            "A policy file, a list of files, or the policy itself. In a list, `{file: team.yaml, narrows: true}` is a file that can only take away."
        ),
    ] = None
    guard: Annotated[Guard, doc("Checks of definitions, arguments and results.")] = field(default_factory=Guard)
    quotas: Annotated[tuple[Quota, ...], doc("Rates, concurrency, quotas and budgets.")] = ()
    prices: Annotated[
        dict[str, float | Price],
        doc(
            "What calls cost, by globs over `server/tool`; of several the last one counts. A number is the price of one call."
        ),
    ] = field(default_factory=dict)
    quotas_store: Annotated[
        str | QuotasStore | None,
        doc("Where several gateways count together, or its URL alone. Default: each gateway counts in its `data_dir`."),
    ] = None
    audit: Annotated[Audit, doc("The record of every call.")] = field(default_factory=Audit)
    secrets: Annotated[Secrets, doc("Where references to secrets lead.")] = field(default_factory=Secrets)
    egress: Annotated[Egress, doc("Where URLs that strangers name may lead: public addresses only, if not more.")] = (
        field(default_factory=Egress)
    )
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
