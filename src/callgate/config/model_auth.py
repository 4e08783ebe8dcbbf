"""The settings of a server's `auth`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import field

from .kinds import Seconds, Section, doc


class UpstreamAuth(Section, frozen=True):
    """Whose identity a server at `url` is shown, and how. Without it `headers` are all that the server gets."""

    type: Annotated[
        Literal[
            "none",
            "assertion",
            "exchange",
            "on_behalf_of",
            "client_credentials",
            "oauth",
            "enterprise",
            "workload",
        ],
        doc(
            "`assertion`: a short-lived token signed by callgate that names the caller. `exchange`: a token that the server's issuer gives for the caller (RFC 8693). `on_behalf_of`: the same in the way of Entra ID. `client_credentials`: callgate's own token of that issuer. `oauth`: each user connects with a browser, once, and callgate keeps the grant. `enterprise`: the identity provider of the organisation vouches for the user (ID-JAG), nobody is asked. `workload`: callgate's own token of that issuer, for the identity of its workload."
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
    token_endpoint: Annotated[
        str | None,
        doc(
            "Where the server's issuer gives tokens. Default for `oauth`, `client_credentials`, `enterprise` and `workload`: found through the server (RFC 9728, RFC 8414)."
        ),
    ] = None
    issuer: Annotated[
        str | None,
        doc(
            "The server's issuer: `aud` of what callgate signs for it. Default: `token_endpoint`, or the issuer that the server names. A server that names another one than this gets no token."
        ),
    ] = None
    client_id: Annotated[
        str | None,
        doc(
            "The client that callgate is at this issuer. Default for `oauth`: the client metadata document of the gateway where the issuer takes those, else callgate registers itself."
        ),
    ] = None
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
    client_key: Annotated[
        str | None,
        doc("Private key (PEM) for `private_key_jwt`, as a reference. Default: callgate's own key."),
    ] = None
    scope: Annotated[
        tuple[str, ...],
        doc("Scopes to ask for. Default where the issuer is found through the server: those that the server names."),
    ] = ()
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
    through: Annotated[
        tuple[str, ...],
        doc(
            "`oauth` and `enterprise`: agents that may use the grants of the users for whom they act, as globs over their names. Calls through other agents are denied. Applications need no entry."
        ),
    ] = ()
    dpop: Annotated[
        bool, doc("Bind tokens to a key of callgate's and prove its possession with each request (DPoP, RFC 9449).")
    ] = False
    pkce: Annotated[
        Literal["advertised", "assumed"],
        doc(
            "`oauth` uses an issuer only if its metadata say that it checks PKCE. `assumed`: you know that this `issuer` does, though it does not say so (Entra ID)."
        ),
    ] = "advertised"
    authorize_params: Annotated[
        dict[str, str],
        doc("`oauth`: further parameters of the authorization request, such as `access_type: offline`."),
    ] = field(default_factory=dict)
    provider: Annotated[
        str | None,
        doc("`enterprise`: the entry of `identity.providers` that vouches for the users who signed in there."),
    ] = None
    assertion_file: Annotated[
        str | None,
        doc(
            "`workload`: file with the token of callgate's workload, such as a projected Kubernetes service account token; read anew for each request. `enterprise`: file with the ID token of the one person that this gateway serves."
        ),
    ] = None
