"""People's tokens that are bound to a key of their application: codes, access tokens, refresh tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callgate.config import OAuth
from callgate.identity.oauth.binding import check_required
from callgate.identity.oauth.described import DOCUMENT, REGISTRATION, Unfit, application
from callgate.identity.oauth.problem import TokenError
from tests.fuzz.raw import Reply
from tests.identity.signin.idp import SECRET

from .keyholder import MINE, THEIRS, Holder
from .office import claims_of, error_of, token_in
from .reception import SITE, WHERE, Reception, reception

pytestmark = pytest.mark.anyio
GRANT = (400, "invalid_grant")


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reception]:
    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with reception(tmp_path) as stand:
        yield stand


async def redeem(stand: Reception, code: str, holder: Holder | None) -> Reply:
    form = {
        "grant_type": "authorization_code", "code": code, "code_verifier": stand.verifier,
        "redirect_uri": WHERE[SITE], "client_id": SITE,
    }  # fmt: skip
    return await sent(stand, form, holder)


async def refresh(stand: Reception, token: str, holder: Holder | None) -> Reply:
    return await sent(stand, {"grant_type": "refresh_token", "refresh_token": token, "client_id": SITE}, holder)


async def sent(stand: Reception, form: dict[str, Any], holder: Holder | None) -> Reply:
    proof = [("DPoP", holder.proof(path="/oauth/token"))] if holder is not None else []
    return await stand.post(form, *proof)


@pytest.mark.rule("AST-7")
async def test_attack_a_bound_refresh_token_with_another_key_or_none(stand: Reception) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    first = (await redeem(stand, await stand.code(SITE), mine)).json
    assert first["token_type"] == "DPoP" and claims_of(first["access_token"])["cnf"] == {"jkt": mine.jkt}
    assert (await mine.call(first["access_token"])).status == 200
    assert (await stand.call_with(first["access_token"])).status == 401
    for holder in (None, thief):
        assert error_of(await refresh(stand, first["refresh_token"], holder)) == GRANT
    renewed = await refresh(stand, first["refresh_token"], mine)  # the refusals cost nothing
    assert claims_of(token_in(renewed))["cnf"] == {"jkt": mine.jkt}
    for holder in (None, thief):
        assert error_of(await refresh(stand, renewed.json["refresh_token"], holder)) == GRANT


@pytest.mark.rule("AST-7")
async def test_attack_a_stolen_code_with_another_key_or_none(stand: Reception) -> None:
    mine, thief = Holder(stand), Holder(stand, THEIRS)
    for holder in (None, thief):
        assert error_of(await redeem(stand, await stand.code(SITE, dpop_jkt=MINE.thumbprint()), holder)) == GRANT
    code = await stand.code(SITE, dpop_jkt=MINE.thumbprint())
    assert (await redeem(stand, code, mine)).json["token_type"] == "DPoP"


@pytest.mark.rule("AST-6")
async def test_attack_a_proof_that_does_not_hold_costs_no_code(stand: Reception) -> None:
    mine = Holder(stand)
    code = await stand.code(SITE)
    form = {
        "grant_type": "authorization_code", "code": code, "code_verifier": stand.verifier,
        "redirect_uri": WHERE[SITE], "client_id": SITE,
    }  # fmt: skip
    bad = await stand.post(form, ("DPoP", mine.proof("GET", "/oauth/token")))
    assert error_of(bad) == (400, "invalid_dpop_proof")
    assert (await redeem(stand, code, mine)).status == 200


@pytest.mark.rule("AST-6")
async def test_an_application_that_wants_no_other_tokens_gets_none() -> None:
    said = {"client_name": "x", "redirect_uris": ["https://x.example/cb"], "dpop_bound_access_tokens": True}
    for how in (DOCUMENT, REGISTRATION):
        app = application("x", said, how)
        check_required(OAuth(), app, {"jkt": MINE.thumbprint()})
        for other in ({}, {"x5t#S256": MINE.thumbprint()}):
            with pytest.raises(TokenError, match="invalid_dpop_proof"):
                check_required(OAuth(), app, other)
        check_required(OAuth(), application("x", {**said, "dpop_bound_access_tokens": False}, how), {})
        with pytest.raises(Unfit):
            application("x", {**said, "dpop_bound_access_tokens": "true"}, how)


@pytest.mark.rule("AST-6")
async def test_attack_a_request_that_was_listened_to_is_sent_again(stand: Reception) -> None:
    """A code that comes twice ends what it gave; a replayed proof is refused before anybody looks at the code."""
    mine = Holder(stand)
    form = {
        "grant_type": "authorization_code", "code": await stand.code(SITE), "code_verifier": stand.verifier,
        "redirect_uri": WHERE[SITE], "client_id": SITE,
    }  # fmt: skip
    proof = ("DPoP", mine.proof(path="/oauth/token"))
    first = await stand.post(form, proof)
    assert error_of(await stand.post(form, proof)) == (400, "invalid_dpop_proof")
    assert (await mine.call(token_in(first))).status == 200
    assert (await refresh(stand, first.json["refresh_token"], mine)).status == 200
