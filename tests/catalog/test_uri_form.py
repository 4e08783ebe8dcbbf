"""Exposed URIs: read back by text alone, never two ways, and legal wherever the server's own is."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import AnyUrl, ValidationError

from callgate.catalog import expose, native

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
#: Texts made of what the form itself is made of, so that one URI comes close to looking like another.
TRICKY = st.lists(
    st.sampled_from(["ui", "skill", "://", "/", "+", "x.", "git", ":", "..", ".", "a", "file", "%2e", "{v}", "?", "#"])
).map("".join)
URIS = st.one_of(st.text(), TRICKY)


@given(NAMES, URIS)
@example("git", "ui://../x")
@example("git", "git+ui://x")
@example("x.i5uxi", "a")
def test_every_uri_is_read_back(server: str, uri: str) -> None:
    assert native(expose(server, uri)) == (server, uri)


@given(NAMES, URIS, NAMES, URIS)
@example("a", "b+c", "a", "c")
@example("ui", "//git/x", "git", "ui://x")
def test_no_two_uris_share_a_form(server: str, uri: str, other: str, another: str) -> None:
    assume((server, uri) != (other, another))
    assert expose(server, uri) != expose(other, another)


@given(TRICKY)
def test_what_is_read_back_is_one_uri_of_one_server(text: str) -> None:
    pair = native(text)
    if pair is not None and expose(*pair) != text:
        # A template whose variable gave the scheme: the other way to write what has a form of its own.
        assert pair[1].startswith(("ui://", "skill://"))
        assert native(expose(*pair)) == pair


SCHEMES = st.sampled_from(["file", "http", "https", "ui", "skill", "note", "db", "git+ssh", "urn", "x"])
#: The characters of RFC 3986. (Others mean one thing in a host and another in a path.)
RESTS = st.text(alphabet="abcXYZ019/.-_~:@!$&'()*+,;=%?#[]", max_size=24)


@given(NAMES, SCHEMES, st.sampled_from([":", "://", ":///", "://host/"]), RESTS)
@example("git", "ui", "://", "..")
@example("git", "ui", "://", "%2E%2e/x")
@example("git", "ui", "://", "")
@example("a.b", "skill", "://", "path/SKILL.md")
def test_a_client_that_normalises_urls_writes_it_unchanged_where_it_did_so_with_the_servers_own(
    server: str, scheme: str, mark: str, rest: str
) -> None:
    uri = scheme + mark + rest
    try:
        assume(str(AnyUrl(uri)) == uri)
    except ValidationError:
        assume(False)
    exposed = expose(server, uri)
    assert str(AnyUrl(exposed)) == exposed


@pytest.mark.rule("SKILL-3")
def test_apps_and_skills_keep_their_scheme_and_the_end_of_their_path() -> None:
    assert expose("git", "skill://review/SKILL.md") == "skill://git/review/SKILL.md"
    assert expose("Git", "ui://clock/face.html") == "ui://x.i5uxi/clock/face.html"


@pytest.mark.parametrize(
    "text", ["", "file:///a", "+a", "Git+file:///a", "x.+a", "x.I5UXI+a", "x.i5uxi=+a", "x.m5uxi+a", "x.i5uxj+a", "ui://git",
             "ui:///a", "skill://Git/a", "a b+c", "é+c", "x.i5uxia+a", "x.74+a"],
)  # fmt: skip
def test_what_no_uri_is_exposed_as_belongs_to_nobody(text: str) -> None:
    assert native(text) is None


def test_templates_are_written_like_uris() -> None:
    assert expose("git", "file:///{+path}") == "git+file:///{+path}"
    assert expose("git", "ui://{page}/x") == "ui://git/{page}/x"
    # What a client makes of the exposed template is the exposed form of what it would make of the server's own.
    assert native("git+{+uri}".replace("{+uri}", "ui://a/b")) == ("git", "ui://a/b")
