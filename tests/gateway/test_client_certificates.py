"""Tokens that are bound to certificates of clients (RFC 8705), and agents that prove themselves by one, through a proxy
that ends TLS; with the attacks of those who can reach callgate past the proxy, or have another certificate.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fuzz.messages import dump, initialize, post, rpc
from tests.fuzz.raw import Reply
from tests.gateway.stand import Wire, calling
from tests.identity.oauth.keyholder import THEIRS, Holder
from tests.identity.oauth.office import Office, agent, basic, claims_of, error_of, office, token_in
from tests.identity.provider import ec_key, public
from tests.servers.tls_proxy import Maker, TlsProxy, client_cert, envoy, thumbprint

pytestmark = pytest.mark.anyio
OWN = {"grant_type": "client_credentials"}
MESH = "spiffe://example.org/ns/agents/sa/mesh"
HERE = {"proxies": ["127.0.0.1"]}
ELSEWHERE = {"proxies": ["10.99.0.1"]}


class House(Office):
    """An office behind a proxy; clients have certificates of ``maker``."""

    proxy: TlsProxy
    maker: Maker

    async def through(self, data: bytes, file: Path | None = None) -> Reply:  # type: ignore[override]
        """One request over TLS, with the certificate in a file, or with none."""
        context = self.proxy.client(file)
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.proxy.port, ssl=context))
        async with wire:
            wire.send(data)
            return await wire.reply()

    def form(self, fields: Mapping[str, str], *headers: tuple[str, str], client: str = "planner") -> bytes:
        """A request for a token."""
        body = urlencode(fields)
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        auth = (("Authorization", basic(client)),) if client else ()
        size = ("Content-Length", str(len(body)))
        return self.page("/oauth/token", kind, size, *auth, *headers, method="POST") + body.encode()

    def calling(self, token: str, *headers: tuple[str, str], path: str = "/mcp") -> bytes:
        return self.request(calling("u__hello", {}), ("Authorization", f"Bearer {token}"), *headers, path=path)

    async def bound(self, file: Path, **fields: str) -> str:
        """A token that is bound to a certificate."""
        return token_in(await self.through(self.form({**OWN, **fields}), file))


@asynccontextmanager
async def house(folder: Path, certificates: Mapping[str, Any] = HERE, **more: Any) -> AsyncIterator[House]:
    careless = more.pop("careless", False)
    write = envoy if certificates.get("header") == "X-Forwarded-Client-Cert" else client_cert
    async with office(folder, {"client_certificates": certificates, **more}) as stand:
        stand.__class__ = House
        assert isinstance(stand, House)
        stand.maker = Maker(folder, "authority")
        header = certificates.get("header", "Client-Cert")
        async with TlsProxy(stand.maker, stand.port, header, write, careless) as stand.proxy:
            yield stand


@pytest.mark.key("identity.client_certificates", "identity.client_certificates.header")
@pytest.mark.parametrize("header", ["Client-Cert", "X-Forwarded-Client-Cert"])
async def test_a_token_is_bound_to_the_certificate(tmp_path: Path, header: str) -> None:
    async with house(tmp_path, {**HERE, "header": header}) as stand:
        mine, der = stand.maker.make("mine")
        other, _ = stand.maker.make("other")
        reply = await stand.through(stand.form(OWN), mine)
        token = token_in(reply)
        assert reply.json["token_type"] == "Bearer" and claims_of(token)["cnf"] == {"x5t#S256": thumbprint(der)}
        for _ in range(2):
            assert (await stand.through(stand.calling(token), mine)).status == 200
        # Swapped for another one of the same authority, for none, and past the proxy.
        refused = [
            await stand.through(stand.calling(token), other),
            await stand.through(stand.calling(token)),
            await stand.call_with(token),
        ]
        for each in refused:
            assert each.status == 401 and 'error="invalid_token"' in each.headers["www-authenticate"]
        plain = token_in(await stand.through(stand.form(OWN)))
        assert "cnf" not in claims_of(plain) and (await stand.through(stand.calling(plain), other)).status == 200
        document = (await stand.get("/.well-known/oauth-authorization-server")).json
        assert document["tls_client_certificate_bound_access_tokens"] is True
        assert "tls_client_auth" not in document["token_endpoint_auth_methods_supported"]
        resource = (await stand.get("/.well-known/oauth-protected-resource/mcp")).json
        assert resource["tls_client_certificate_bound_access_tokens"] is True


@pytest.mark.key("identity.client_certificates.proxies")
async def test_attack_the_header_from_somebody_who_is_no_proxy(tmp_path: Path) -> None:
    """It neither binds a token nor opens one: a certificate is no secret, anybody can send it."""
    async with house(tmp_path) as stand:
        mine, der = stand.maker.make("mine")
        token = await stand.bound(mine)
        stolen = ("Client-Cert", client_cert(der))
        assert (await stand.through(stand.calling(token), mine)).status == 200
        await stand.reload(identity=stand.identity(client_certificates=ELSEWHERE))
        for forged in (stolen, ("X-Forwarded-Client-Cert", envoy(der))):
            assert (await stand.ask(stand.calling(token, forged))).status == 401
            assert "cnf" not in claims_of(token_in(await stand.ask(stand.form(OWN, forged))))


async def test_attack_the_header_through_the_proxy(tmp_path: Path) -> None:
    """A client with a certificate of its own, or none, sends somebody else's along."""
    async with house(tmp_path) as stand:
        mine, der = stand.maker.make("mine")
        other, theirs = stand.maker.make("other")
        token = await stand.bound(mine)
        stolen = ("Client-Cert", client_cert(der))
        for file in (other, None):
            assert (await stand.through(stand.calling(token, stolen), file)).status == 401
        got = token_in(await stand.through(stand.form(OWN, stolen), other))
        assert claims_of(got)["cnf"] == {"x5t#S256": thumbprint(theirs)}
        # The header of the other kind is not looked at.
        both = ("X-Forwarded-Client-Cert", envoy(der))
        assert (await stand.through(stand.calling(token, both), other)).status == 401
        assert (await stand.through(stand.calling(token, both), mine)).status == 200


async def test_attack_a_proxy_that_leaves_the_header_of_the_client(tmp_path: Path) -> None:
    """Then there are two: nobody chooses between them."""
    async with house(tmp_path, careless=True) as stand:
        mine, der = stand.maker.make("mine")
        other, _ = stand.maker.make("other")
        token = await stand.bound(mine)
        stolen = ("Client-Cert", client_cert(der))
        for data in (stand.calling(token, stolen), stand.form(OWN, stolen)):
            assert (await stand.through(data, other)).status == 400


async def test_attack_a_header_that_cannot_be_read(tmp_path: Path) -> None:
    async with house(tmp_path) as stand:
        mine, der = stand.maker.make("mine")
        token = await stand.bound(mine)
        for bad in ("", ":AA==:", f"{client_cert(der)}, {client_cert(der)}", client_cert(der) + ";x", "x" * 20_000):
            assert (await stand.ask(stand.calling(token, ("Client-Cert", bad)))).status == 401
            assert error_of(await stand.ask(stand.form(OWN, ("Client-Cert", bad)))) == (400, "invalid_request")
        assert (await stand.ask(stand.calling(token, ("Client-Cert", client_cert(der))))).status == 200


async def test_attack_a_session_and_its_stream_with_another_certificate(tmp_path: Path) -> None:
    async with house(tmp_path) as stand:
        mine, _ = stand.maker.make("mine")
        other, _ = stand.maker.make("other")
        token = await stand.bound(mine)
        auth = ("Authorization", f"Bearer {token}")
        opened = await stand.through(post(stand.port, dump(initialize()), [auth]), mine)
        session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
        again = post(stand.port, dump(rpc("ping", {}, 2)), [auth, session])
        stream = ("Accept", "text/event-stream")
        for data in (
            again,
            stand.page("/mcp", auth, session, stream),
            stand.page("/mcp", auth, session, method="DELETE"),
            stand.page("/sse", auth, stream),
        ):
            for reply in (await stand.through(data, other), await stand.through(data), await stand.ask(data)):
                assert reply.status == 401
        assert (await stand.through(again, mine)).status == 200
        assert (await stand.through(stand.page("/mcp", auth, session, method="DELETE"), mine)).status == 204


async def test_a_proof_of_a_key_comes_before_the_certificate(tmp_path: Path) -> None:
    async with house(tmp_path) as stand:
        mine, _ = stand.maker.make("mine")
        holder = Holder(stand)
        made = ("DPoP", holder.proof(path="/oauth/token"))
        token = token_in(await stand.through(stand.form(OWN, made), mine))
        assert claims_of(token)["cnf"] == {"jkt": holder.jkt}
        assert (await stand.through(stand.calling(token), mine)).status == 401
        assert (await holder.call(token)).status == 200


async def test_attack_a_certificates_token_as_dpop(tmp_path: Path) -> None:
    async with house(tmp_path) as stand:
        mine, _ = stand.maker.make("mine")
        token = await stand.bound(mine)
        holder = Holder(stand, THEIRS)
        data = stand.request(calling("u__hello", {}), *holder.headers(token))
        assert (await stand.through(data, mine)).status == 401


async def test_tokens_of_providers_that_are_bound(tmp_path: Path) -> None:
    async with house(tmp_path) as stand:
        mine, der = stand.maker.make("mine")
        other, _ = stand.maker.make("other")
        holder = Holder(stand)
        bound = stand.user(cnf={"x5t#S256": thumbprint(der)})
        twice = stand.user(cnf={"x5t#S256": thumbprint(der), "jkt": holder.jkt})
        statuses = [(await stand.through(stand.calling(bound), each)).status for each in (mine, other, None)]
        assert statuses == [200, 401, 401]
        for file, expected in ((mine, 200), (other, 401), (None, 401)):
            data = stand.request(calling("u__hello", {}), *holder.headers(twice))
            assert (await stand.through(data, file)).status == expected
        assert (await stand.through(stand.calling(twice), mine)).status == 401


@pytest.mark.key("identity.oauth.dpop")
async def test_a_certificate_is_enough_where_tokens_must_be_bound(tmp_path: Path) -> None:
    async with house(tmp_path, oauth={"dpop": "required"}) as stand:
        mine, _ = stand.maker.make("mine")
        token = await stand.bound(mine)
        assert (await stand.through(stand.calling(token), mine)).status == 200
        assert error_of(await stand.through(stand.form(OWN))) == (400, "invalid_dpop_proof")


# Agents that prove themselves by their certificate


def mesh(stand_identity: dict[str, Any], folder: Path, root: bytes) -> dict[str, Any]:
    """The identity with a trust domain whose authority is ``root``, and an agent in it."""
    key = {**public(ec_key("bundle")), "use": "x509-svid", "x5c": [base64.b64encode(root).decode()]}
    bundle = folder / "bundle.json"
    bundle.write_text(json.dumps({"keys": [key]}))
    workloads = [{"issuer": "mesh", "subject": "spiffe://example.org/ns/agents/sa/mesh"}]
    member = {"roles": ["coder"], "workloads": workloads}
    other = {"roles": ["coder"], "workloads": [{**workloads[0], "subject": "spiffe://example.org/ns/agents/sa/other"}]}
    agents = {**stand_identity["agents"], "mesh": member, "other": other, "keyed": agent("keyed")}
    federation = {"mesh": {"trust_domain": "example.org", "jwks_file": str(bundle)}}
    return {**stand_identity, "agents": agents, "federation": federation}


@asynccontextmanager
async def meshed(folder: Path, header: str = "Client-Cert") -> AsyncIterator[House]:
    async with house(folder, {**HERE, "header": header}) as stand:
        identity = stand.identity(client_certificates={**HERE, "header": header})
        await stand.reload(identity=mesh(identity, folder, stand.maker.der))
        assert stand.house.trouble == ""
        yield stand


def named(client: str, **more: str) -> dict[str, str]:
    return {**OWN, "client_id": client, **more}


@pytest.mark.parametrize("header", ["Client-Cert", "X-Forwarded-Client-Cert"])
async def test_an_agent_proves_itself_by_its_certificate(tmp_path: Path, header: str) -> None:
    async with meshed(tmp_path, header) as stand:
        file, der = stand.maker.make("svid", MESH)
        token = token_in(await stand.through(stand.form(named("mesh"), client=""), file))
        claims = claims_of(token)
        assert (claims["sub"], claims["cnf"]) == ("agent:mesh", {"x5t#S256": thumbprint(der)})
        assert (await stand.through(stand.calling(token), file)).status == 200
        assert (await stand.call_with(token)).status == 401
        document = (await stand.get("/.well-known/oauth-authorization-server")).json
        assert "tls_client_auth" in document["token_endpoint_auth_methods_supported"]


INVALID = (401, "invalid_client")


async def test_attack_somebody_elses_certificate(tmp_path: Path) -> None:
    async with meshed(tmp_path) as stand:
        file, der = stand.maker.make("svid", MESH)
        plain, _ = stand.maker.make("plain")
        foreign, _ = stand.maker.make("foreign", "spiffe://other.org/ns/agents/sa/mesh")
        authority = Maker(tmp_path, "another")
        _, forged = authority.make("forged", MESH)
        for client, certificate in (
            ("other", file),
            ("planner", file),
            ("mesh", plain),
            ("mesh", foreign),
            ("mesh", None),
        ):
            assert error_of(await stand.through(stand.form(named(client), client=""), certificate)) == INVALID
        # The proxy may trust more authorities than the trust domain has: it is verified here, too.
        passed = ("Client-Cert", client_cert(forged))
        assert error_of(await stand.ask(stand.form(named("mesh"), passed, client=""))) == INVALID
        good = ("Client-Cert", client_cert(der))
        assert (await stand.ask(stand.form(named("mesh"), good, client=""))).status == 200
        # Without a name, or with a second way, it proves nobody.
        assert error_of(await stand.through(stand.form(OWN, client=""), file)) == INVALID
        guess = named("mesh", client_secret="guess")
        assert error_of(await stand.through(stand.form(guess, client=""), file)) == INVALID
        await stand.reload(identity={**stand.settings["identity"], "client_certificates": ELSEWHERE})
        assert error_of(await stand.ask(stand.form(named("mesh"), good, client=""))) == INVALID


async def test_attack_a_suspended_agent_with_a_certificate(tmp_path: Path) -> None:
    async with meshed(tmp_path) as stand:
        file, _ = stand.maker.make("svid", MESH)
        token = token_in(await stand.through(stand.form(named("mesh"), client=""), file))
        identity = stand.settings["identity"]
        identity["agents"]["mesh"]["status"] = "suspended"
        await stand.reload(identity=identity)
        assert error_of(await stand.through(stand.form(named("mesh"), client=""), file)) == INVALID
        assert (await stand.through(stand.calling(token), file)).status == 401


async def test_attack_a_hash_alone_proves_no_agent(tmp_path: Path) -> None:
    async with meshed(tmp_path, "X-Forwarded-Client-Cert") as stand:
        _, der = stand.maker.make("svid", MESH)
        alone = ("X-Forwarded-Client-Cert", envoy(der).partition(";")[0] + f";URI={MESH}")
        assert error_of(await stand.ask(stand.form(named("mesh"), alone, client=""))) == INVALID
        token = token_in(await stand.ask(stand.form(OWN, alone)))
        assert claims_of(token)["cnf"] == {"x5t#S256": thumbprint(der)}
