"""`identity.federation` and `workloads`: what holds together, and what would trust too much."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.config.folder import Folder

SPIFFE = "trust_domain: example.org"
CI = "issuer: https://ci.example"


def text(entry: str = CI, subject: str = "", more: str = "", oauth: str = "oauth: {}, ") -> str:
    """Settings with one issuer ``one`` and, if there is a subject, one agent that is a workload of it."""
    agent = f", agents: {{robot: {{workloads: [{{issuer: one, subject: '{subject}'}}]}}}}" if subject else ""
    return f"identity: {{{oauth}federation: {{one: {{{entry}}}{more}}}{agent}}}"


@pytest.mark.parametrize(
    "entry",
    [
        CI,
        f"{CI}, jwks_uri: https://ci.example/keys, audience: [callgate], algorithms: [ES384]",
        "issuer: https://kubernetes.default.svc, ca_file: ca.crt, token_file: /nowhere/yet/token",
        "issuer: kubernetes/serviceaccount, jwks_uri: 'http://127.0.0.1:1/keys'",
        "issuer: anything, jwks_file: keys.json",
        f"{SPIFFE}, workload_api: 'unix:///run/spire/agent.sock'",
        f"{SPIFFE}, workload_api: 'tcp://127.0.0.1:8081', issuer: https://oidc.example.org",
        f"{SPIFFE}, jwks_file: keys.json",
        f"{SPIFFE}, jwks_uri: https://spire.example.org/bundle, ca_file: ca.crt",
    ],
)
def test_what_can_be_meant(folder: Folder, entry: str) -> None:
    folder.write("keys.json", '{"keys": []}')
    folder.write("ca.crt", "")
    found = folder.load(text(entry)).settings.identity.federation["one"]
    for path in (found.jwks_file, found.ca_file):
        assert path is None or path.startswith(str(folder.path))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("audience: [x]", "whose tokens these are is not said"),
        ("issuer: ci.example", "`issuer` is not the URL of a host"),
        ("issuer: http://ci.example", "`issuer` must begin with `https://`"),
        ("issuer: x, jwks_uri: http://ci.example/keys", "`jwks_uri` must begin with `https://`"),
        (f"{CI}, jwks_uri: https://ci.example, jwks_file: keys.json", "two sources of keys"),
        (f"{CI}, jwks_file: nothing.json", "nothing.json does not exist"),
        (f"{CI}, ca_file: nothing.crt", "nothing.crt does not exist"),
        (f"{CI}, jwks_file: keys.json, ca_file: keys.json", "`ca_file` has no effect with `jwks_file`"),
        (f"{CI}, jwks_file: keys.json, token_file: t", "`token_file` has no effect with `jwks_file`"),
        (f"{CI}, algorithms: [HS256]", "algorithm `HS256` is not accepted"),
        (f"{CI}, algorithms: [none]", "algorithm `none` is not accepted"),
        (f"{CI}, audience: ['']", "an audience is empty"),
        (f"{CI}, longest: 2d", "longest"),
        (f"{CI}, workload_api: 'unix:///run/a.sock'", "no effect without `trust_domain`"),
        (SPIFFE, "the trust domain has no bundle"),
        ("trust_domain: 'spiffe://example.org', jwks_file: keys.json", "is not the name of one"),
        ("trust_domain: Example.org, jwks_file: keys.json", "is not the name of one"),
        (f"{SPIFFE}, workload_api: 'tcp://10.1.2.3:8081'", "no socket of this machine"),
        (f"{SPIFFE}, workload_api: 'tcp://localhost:8081'", "no socket of this machine"),
        (f"{SPIFFE}, workload_api: 'tcp://127.0.0.1'", "no socket of this machine"),
        (f"{SPIFFE}, workload_api: 'unix://run/agent.sock'", "no socket of this machine"),
        (f"{SPIFFE}, workload_api: /run/agent.sock", "no socket of this machine"),
        (f"{SPIFFE}, workload_api: 'https://127.0.0.1:1'", "no socket of this machine"),
        (f"{SPIFFE}, workload_api: 'unix:///a', jwks_file: keys.json", "`jwks_file` has no effect beside"),
    ],
)
@pytest.mark.key("identity.federation.issuer", "identity.federation.jwks_uri", "identity.federation.workload_api")
def test_what_cannot_be_meant(folder: Folder, entry: str, says: str) -> None:
    folder.write("keys.json", '{"keys": []}')
    (problem,) = folder.refused(text(entry))
    assert says in problem.message and problem.place is not None


@pytest.mark.parametrize(
    ("entry", "subject", "says"),
    [
        (CI, "*", "covers workloads of anybody"),
        (CI, "*:*", "covers workloads of anybody"),
        (CI, "*/app:main", "covers workloads of anybody"),
        (CI, "repo:*/app:ref:refs/heads/main", "covers workloads of anybody"),
        (CI, "repo:*", "covers workloads of anybody"),
        (CI, "system:serviceaccount:*:planner", "covers workloads of anybody"),
        (CI, "project_path:*/*:ref_type:branch:ref:main", "covers workloads of anybody"),
        (CI, "repo:org/**", "has `**`"),
        (CI, "repo:\u043erg/app", "letters that no accepted `sub` has"),
        (f"{SPIFFE}, jwks_file: keys.json", "*", "is not below"),
        (f"{SPIFFE}, jwks_file: keys.json", "spiffe://*/ns/a", "is not below"),
        (f"{SPIFFE}, jwks_file: keys.json", "spiffe://other.org/a", "is not below"),
        (f"{SPIFFE}, jwks_file: keys.json", "spiffe://example.org.evil.org/a", "is not below"),
        (f"{SPIFFE}, jwks_file: keys.json", "spiffe://example.org/*", "covers the whole trust domain"),
        (f"{SPIFFE}, jwks_file: keys.json", "spiffe://example.org/*/*", "covers the whole trust domain"),
    ],
)
@pytest.mark.key("identity.agents.workloads.subject")
def test_a_subject_that_trusts_too_much(folder: Folder, entry: str, subject: str, says: str) -> None:
    folder.write("keys.json", '{"keys": []}')
    (problem,) = folder.refused(text(entry, subject))
    assert says in problem.message and problem.hint


@pytest.mark.parametrize(
    ("entry", "subject"),
    [
        (CI, "system:serviceaccount:team:planner"),
        (CI, "repo:org/*:ref:refs/heads/main"),
        (CI, "110769150350006150715"),
        (CI, "arn:aws:iam::123456789012:role/planner"),
        (f"{SPIFFE}, jwks_file: keys.json", "spiffe://example.org/ns/*/sa/planner"),
    ],
)
def test_a_subject_that_says_whose_it_is(folder: Folder, entry: str, subject: str) -> None:
    folder.write("keys.json", '{"keys": []}')
    (workload,) = folder.load(text(entry, subject)).settings.identity.agents["robot"].workloads
    assert workload.subject == subject


@pytest.mark.parametrize(
    ("settings", "says", "hint"),
    [
        (text(more=", two: {issuer: https://ci.example}"), "`one` has this `issuer` already", "audience"),
        (
            text(f"{SPIFFE}, workload_api: 'unix:///a'", more=f", two: {{{SPIFFE}, workload_api: 'unix:///b'}}"),
            "`one` has this `trust_domain` already",
            "audience",
        ),
        (text(oauth=""), "workloads need the token service", "oauth"),
        (text(oauth="oauth: {issuer: https://ci.example}, "), "this is the token service itself", "no proof"),
        ("public_url: https://ci.example\n" + text(), "this is the token service itself", "no proof"),
        (text(subject="repo:a/b").replace("issuer: one", "issuer: ones"), "there is no issuer `ones`", "`one`"),
        (
            "identity: {oauth: {}, agents: {a: {workloads: [{issuer: ci, subject: x}]}}}",
            "there is no issuer `ci`",
            "identity.federation",
        ),
    ],
)
@pytest.mark.key("identity.federation", "identity.agents.workloads")
def test_what_does_not_agree(folder: Folder, settings: str, says: str, hint: str) -> None:
    (problem,) = folder.refused(settings)
    assert says in problem.message and hint in problem.hint


def test_every_problem_is_told(folder: Folder) -> None:
    entries: Mapping[str, str] = {"a": "issuer: http://a.example", "b": SPIFFE, "c": "audience: [x]"}
    federation = ", ".join(f"{name}: {{{entry}}}" for name, entry in entries.items())
    problems = folder.refused(f"identity: {{oauth: {{}}, federation: {{{federation}}}}}")
    assert len(problems) == 3
