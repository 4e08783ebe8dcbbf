"""Which issuer a server trusts, and where its endpoints are (RFC 9728, RFC 8414, OpenID Connect Discovery).

Everything here is said by strangers: each document is used only if it is about what was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from callgate.config import UpstreamAuth
from callgate.egress import Response, parse_url
from callgate.errors import CallgateError, UpstreamError

from .challenge import Challenge, challenge, scopes_in, union
from .reach import Reach

FRESH = 600.0  # seconds in which what was found is not asked for again
_PROBE = (
    b'{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{"_meta":{'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientInfo":{"name":"callgate","version":"0"},'
    b'"io.modelcontextprotocol/clientCapabilities":{}}}}'
)
_PROBING = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/list",
    "user-agent": "callgate",
}


class Issuer(msgspec.Struct, frozen=True):
    """An authorization server, as its metadata describes it. ``methods`` are the ways in which clients prove
    themselves, ``documents`` says that it takes client metadata documents, ``iss_expected`` that it names itself in
    every answer (RFC 9207).
    """

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    methods: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    documents: bool = False
    iss_expected: bool = False
    pkce: bool = False


class Found(msgspec.Struct, frozen=True):
    """What is known of a server: ``resource`` is how it is named in requests to its issuer (RFC 8707; empty: not at
    all), ``scopes`` are those to ask for.
    """

    resource: str
    scopes: tuple[str, ...]
    issuer: Issuer


class Discovery:
    """Of one server. ``told`` takes what the server says itself, which is the newest there is."""

    def __init__(self, url: str, auth: UpstreamAuth, reach: Reach, clock: Callable[[], float]) -> None:
        self._url = url
        self._auth = auth
        self._reach = reach
        self._clock = clock
        self._told: Challenge | None = None
        self._found: Found | None = None
        self._until = 0.0
        self._finding = asyncio.Lock()

    def told(self, said: Challenge) -> None:
        """The server refused a request: what was found before may be true no longer."""
        if said.metadata or said.scopes or self._told is None:
            self._told = said
        self._until = 0.0

    @property
    def issuer(self) -> str:
        """The issuer that was found last; empty: none yet."""
        return "" if self._found is None else self._found.issuer.issuer

    async def find(self) -> Found:
        """Raises UpstreamError where there is no issuer, or one that callgate must not use."""
        async with self._finding:
            if self._found is None or self._clock() >= self._until:
                self._found = await self._find()
                self._until = self._clock() + FRESH
            return self._found

    async def _find(self) -> Found:
        if self._told is None:
            self._told = await self._probe()
        said = self._told
        about = await self._resource(said)
        name = self._chosen(about)
        issuer = await self._issuer(name)
        auth = self._auth
        resource = auth.resource if auth.resource is not None else (_text(about, "resource") or canonical(self._url))
        supported = _texts(about, "scopes_supported")
        # The usual ones: what the operator says, else the server's challenge, else its metadata, else none.
        return Found(resource, auth.scope or said.scopes or scopes_in(" ".join(supported)), issuer)

    async def _probe(self) -> Challenge:
        """Ask for the list of tools without a credential: the answer is a challenge, or the server needs none."""
        try:
            response: Response = await self._reach.ask(self._url, "POST", _PROBING, _PROBE)
        except CallgateError:
            return Challenge()
        return challenge(response) if response.status == 401 else Challenge()

    async def _resource(self, said: Challenge) -> dict[str, Any]:
        """The metadata of the resource: where the server says that they are, else at the well-known places (OC-1).

        Empty where there are none: servers of 2025-03-26 are their own issuers.
        """
        for url in [said.metadata] if said.metadata else list(resource_forms(self._url)):
            try:
                found: dict[str, Any] = await self._reach.document(url)
            except CallgateError as error:
                if said.metadata:
                    raise UpstreamError(f"has metadata that cannot be read: {error.message}") from None
                continue
            if not found:
                continue
            if not covers(_text(found, "resource"), self._url):
                raise UpstreamError("has metadata of another resource; callgate asks for no token with them")
            return found
        return {}

    def _chosen(self, about: dict[str, Any]) -> str:
        """The issuer to use; the configured one must be among those that the server names (OC-8)."""
        named, wanted = _texts(about, "authorization_servers"), self._auth.issuer
        if wanted:
            if named and wanted not in named:
                raise UpstreamError("names another issuer than the one that is configured, `auth.issuer`")
            return wanted
        if about and not named:
            raise UpstreamError("names no issuer in its metadata")
        return named[0] if named else parse_url(self._url).origin

    async def _issuer(self, name: str) -> Issuer:
        """The metadata of an issuer. Documents that name another one are not used, whatever they say (OC-2)."""
        self._reach.check(name, "an issuer")
        other, why = False, "there are none"
        for url in issuer_forms(name):
            try:
                said = await self._reach.document(url)
            except CallgateError as error:
                why = error.message
                continue
            if said.get("issuer") == name:
                return self._read(name, said)
            other = other or bool(said)
            why = "they name another issuer"
        if other:
            raise UpstreamError("has an issuer whose metadata name another issuer; they are not used")
        hint = (
            "" if self._auth.issuer else "If the server takes tokens of another issuer, name that one in `auth.issuer`."
        )
        raise UpstreamError(f"has an issuer whose metadata cannot be read: {why}", hint=hint)

    def _read(self, name: str, said: dict[str, Any]) -> Issuer:
        def endpoint(member: str) -> str:
            url = _text(said, member)
            return self._reach.check(url, f"an issuer with a `{member}`") if url else ""

        return Issuer(
            issuer=name,
            token_endpoint=self._auth.token_endpoint or endpoint("token_endpoint"),
            authorization_endpoint=endpoint("authorization_endpoint"),
            registration_endpoint=endpoint("registration_endpoint"),
            revocation_endpoint=endpoint("revocation_endpoint"),
            methods=_texts(said, "token_endpoint_auth_methods_supported"),
            scopes=union(_texts(said, "scopes_supported")),
            documents=said.get("client_id_metadata_document_supported") is True,
            iss_expected=said.get("authorization_response_iss_parameter_supported") is True,
            pkce="S256" in _texts(said, "code_challenge_methods_supported"),
        )


def resource_forms(url: str) -> Iterator[str]:
    """Where the metadata of a server may be: below its path, then at the root (RFC 9728, section 3.1).

    >>> list(resource_forms("https://x.example/a/mcp"))[0]
    'https://x.example/.well-known/oauth-protected-resource/a/mcp'
    """
    address = parse_url(url)
    path = urlsplit(url).path.rstrip("/")
    base = f"{address.origin}/.well-known/oauth-protected-resource"
    yield from dict.fromkeys((base + path, base))


def issuer_forms(issuer: str) -> Iterator[str]:
    """Where the metadata of an issuer may be, in the order of the specification (OC-1).

    >>> list(issuer_forms("https://x.example/t"))[::2]
    ['https://x.example/.well-known/oauth-authorization-server/t', 'https://x.example/t/.well-known/openid-configuration']
    """
    origin, path = parse_url(issuer).origin, urlsplit(issuer).path.rstrip("/")
    yield f"{origin}/.well-known/oauth-authorization-server{path}"
    yield f"{origin}/.well-known/openid-configuration{path}"
    if path:
        yield f"{origin}{path}/.well-known/openid-configuration"


def canonical(url: str) -> str:
    """The name of a server as a resource (RFC 8707): its URL without fragment and trailing slash (OC-4)."""
    return url.partition("#")[0].rstrip("/")


def covers(resource: str, url: str) -> bool:
    """Whether a resource is this server, or what it is a part of.

    >>> covers("https://x.example", "https://x.example/mcp"), covers("https://x.example/m", "https://x.example/mcp")
    (True, False)
    """
    try:
        same = parse_url(resource).origin == parse_url(url).origin
    except CallgateError:
        return False
    if not same or "#" in resource or "?" in resource:
        return resource == url
    theirs, ours = urlsplit(resource).path.rstrip("/"), urlsplit(url).path.rstrip("/")
    return ours == theirs or ours.startswith(theirs + "/")


def borrows(issuer: Issuer, known: Iterable[str]) -> bool:
    """Whether an issuer sends browsers to the sign-in of another one that is known. Users would agree there, and its
    code would go to this one (mix-up: RFC 9700, section 4.4); not every issuer names itself in its answers.
    """
    at = parse_url(issuer.authorization_endpoint).origin
    elsewhere = parse_url(issuer.issuer).origin != at
    return elsewhere and any(each != issuer.issuer and parse_url(each).origin == at for each in known if each)


def _text(said: dict[str, Any], member: str) -> str:
    value = said.get(member)
    return value if isinstance(value, str) and len(value) <= 2048 else ""


def _texts(said: dict[str, Any], member: str) -> tuple[str, ...]:
    value = said.get(member)
    return tuple(each for each in value[:64] if isinstance(each, str)) if isinstance(value, list) else ()
