"""The scenarios in which the suite's server wants tokens, played directly: the official SDK is the OAuth client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from .browser import Browser
from .scenarios import Told, attempt

#: The client that the suite expects where a client's document is its name; nobody fetches it.
DOCUMENT = "https://conformance-test.local/client-metadata.json"
CALLBACK = "http://localhost:3000/callback"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class Memory:
    """What an OAuth client keeps, for as long as one scenario."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class User:
    """Says yes at the suite's authorization server, which asks nothing, and brings back what it answers."""

    def __init__(self) -> None:
        self.browser = Browser()
        self.answer: dict[str, str] = {}

    async def go(self, url: str) -> None:
        self.answer = await self.browser.until(url, CALLBACK)

    async def back(self) -> AuthorizationCodeResult:
        answer, self.answer = self.answer, {}
        return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))


async def by_code(url: str, told: Told) -> httpx2.Auth:
    """The authorization code flow; the suite may have registered a client beforehand."""
    memory, user, context = Memory(), User(), told.context
    if "client_id" in context:
        way = "client_secret_basic" if context.get("client_secret") else "none"
        memory.client = OAuthClientInformationFull(
            client_id=context["client_id"],
            client_secret=context.get("client_secret"),
            redirect_uris=[AnyUrl(CALLBACK)],
            token_endpoint_auth_method=way,
        )
    about = OAuthClientMetadata(
        client_name="callgate conformance",
        redirect_uris=[AnyUrl(CALLBACK)],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    return OAuthClientProvider(url, about, memory, user.go, user.back, client_metadata_url=DOCUMENT)


async def by_secret(url: str, told: Told) -> httpx2.Auth:
    client, secret = told.context["client_id"], told.context["client_secret"]
    return ClientCredentialsOAuthProvider(url, Memory(), client, secret)


async def by_key(url: str, told: Told) -> httpx2.Auth:
    context = told.context
    signed = SignedJWTParameters(
        issuer=context["client_id"],
        subject=context["client_id"],
        signing_algorithm=context.get("signing_algorithm", "ES256"),
        signing_key=context["private_key_pem"],
    )
    return PrivateKeyJWTOAuthProvider(url, Memory(), context["client_id"], signed.create_assertion_provider())


async def by_enterprise(url: str, told: Told) -> httpx2.Auth:
    """Enterprise-managed authorization. The issuer is configuration; the suite says it in the server's metadata."""
    context = told.context

    async def granted(audience: str, resource: str) -> str:
        form = {
            "grant_type": EXCHANGE,
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token": context["idp_id_token"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "audience": audience,
            "resource": resource,
            "client_id": context["idp_client_id"],
        }
        async with httpx2.AsyncClient() as http:
            answer = await http.post(context["idp_token_endpoint"], data=form)
            return str(answer.raise_for_status().json()["access_token"])

    return IdentityAssertionOAuthProvider(
        url,
        Memory(),
        context["client_id"],
        context["client_secret"],
        await issuer_of(url),
        granted,
        token_endpoint_auth_method="client_secret_basic",
    )


async def issuer_of(url: str) -> str:
    """The authorization server that the suite's server names."""
    root, _, path = url.partition("//")[2].partition("/")
    async with httpx2.AsyncClient() as http:
        document = await http.get(f"http://{root}/.well-known/oauth-protected-resource/{path}")
        return str(document.raise_for_status().json()["authorization_servers"][0])


Way = Callable[[str, Told], Coroutine[Any, Any, httpx2.Auth]]
WAYS: dict[str, Way] = {
    "auth/client-credentials-basic": by_secret,
    "auth/client-credentials-jwt": by_key,
    "auth/enterprise-managed-authorization": by_enterprise,
}


async def directly(scenario: str, url: str, told: Told) -> None:
    """List the tools and call the first one, with whatever authorization that takes."""
    way = WAYS.get(scenario, by_code)
    async with httpx2.AsyncClient(auth=await way(url, told), timeout=30.0) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=told.mode) as client:
            for tool in (await client.list_tools()).tools[:1]:
                await attempt(client, tool.name)
