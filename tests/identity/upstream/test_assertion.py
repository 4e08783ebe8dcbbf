"""What is said of a caller."""

from __future__ import annotations

import pytest

from callgate.config import UpstreamAuth
from callgate.errors import Denied
from callgate.identity.upstream.assertion import about_caller, dated, subject
from callgate.types import Actor, Principal

PLAIN = UpstreamAuth(type="assertion")


def alice(**more: object) -> Principal:
    return Principal(subject="alice", key="k", issuer="https://idp.example", via="jwt", **more)  # type: ignore[arg-type]


def test_people_of_two_issuers_are_never_one() -> None:
    assert subject(alice(), None) == "https://idp.example#alice"
    assert subject(Principal(subject="ci", key="k"), None) == "ci"


@pytest.mark.parametrize("name", ["https://idp.example#alice", "callgate", "#"])
def test_a_key_cannot_be_named_like_somebody_else(name: str) -> None:
    with pytest.raises(Denied, match="as that of another"):
        subject(Principal(subject=name, key="k"), None)
    with pytest.raises(Denied):
        subject(alice(claims={"email": "callgate"}), "email")


@pytest.mark.key("servers.auth.subject_claim")
@pytest.mark.parametrize("claims", [{}, {"email": ""}, {"email": ["alice@example.org"]}])
def test_a_claim_that_is_not_there_names_nobody(claims: dict[str, object]) -> None:
    with pytest.raises(Denied, match="claim `email`"):
        subject(alice(claims=claims), "email")
    assert subject(alice(claims={"email": "a@example.org"}), "email") == "a@example.org"


@pytest.mark.rule("DEL-11")
def test_the_chain_is_said_twice_nested_and_attested() -> None:
    chain = (Actor("agent:planner", "https://us", ("planner",)), Actor("agent:coder", "https://us"))
    claims = about_caller(alice(chain=chain, roles=("dev",)), PLAIN, 0.0)
    assert claims == {
        "sub": "https://idp.example#alice",
        "roles": ["dev"],
        "act": {
            "sub": "agent:coder",
            "iss": "https://us",
            "act": {"sub": "agent:planner", "iss": "https://us"},
        },
        "delegation_chain": [
            {"sub": "agent:planner", "iss": "https://us"},
            {"sub": "agent:coder", "iss": "https://us"},
        ],
    }


@pytest.mark.rule("DEL-10")
def test_an_asserted_chain_and_foreign_claims_are_not_passed_on() -> None:
    who = alice(asserted=(Actor("agent:made-up"),), claims={"act": {"sub": "x"}, "delegation_chain": ["x"], "aud": "x"})
    assert about_caller(who, PLAIN, 0.0) == {"sub": "https://idp.example#alice"}


def test_nobody_is_asserted_whose_credential_has_ended() -> None:
    with pytest.raises(Denied, match="while the caller's credential is valid"):
        about_caller(alice(expires=100.0), PLAIN, 100.0)


def test_what_a_caller_claims_cannot_replace_what_callgate_says() -> None:
    claims = dated(
        about_caller(alice(claims={"iss": "x", "exp": 1}), PLAIN, 0.0), "https://us", "https://them", 5.5, 65
    )
    assert (claims["iss"], claims["aud"], claims["iat"], claims["exp"]) == ("https://us", "https://them", 5, 65)
