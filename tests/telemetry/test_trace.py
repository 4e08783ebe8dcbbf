from __future__ import annotations

import pytest

from callgate.telemetry import Parent, format_traceparent, new_span_id, new_trace_id, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)
def test_a_traceparent_is_read(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == Parent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        None, 7, b"00", "", "00", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01\n", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE[:-1]}-{SPAN}-01", f"0g-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more", f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000, f"00-{'٣' * 32}-{SPAN}-01",
    ],
)  # fmt: skip
def test_anything_else_is_ignored(text: object) -> None:
    assert parse_traceparent(text) is None


def test_new_ids_make_a_traceparent_that_is_read_back() -> None:
    for sampled in (True, False):
        trace_id, span_id = new_trace_id(), new_span_id()
        assert parse_traceparent(format_traceparent(trace_id, span_id, sampled)) == Parent(trace_id, span_id, sampled)
    assert len({new_trace_id() for _ in range(1000)}) == 1000


def test_an_id_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.getrandbits", lambda bits: 0)
    assert parse_traceparent(format_traceparent(new_trace_id(), new_span_id())) is not None
