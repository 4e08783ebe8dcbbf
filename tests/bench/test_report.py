"""Figures, tables, the page and the comparison: every figure comes out of a run."""

from __future__ import annotations

import io
import re
import socket
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from bench import compare, page, results, show
from bench.__main__ import arguments, failed
from bench.histogram import Histogram
from bench.plan import Report
from bench.results import Figure, Results, Total
from bench.scenarios import IN_QUICK, SCENARIOS
from bench.tables import GROWTH, growth_rows
from bench.targets import CALLGATE, DIRECT
from bench.track import Pace


def report(latency: int, answered: int = 10) -> Report:
    histogram = Histogram()
    for _ in range(answered):
        histogram.record(latency)
    found = Report(histogram=histogram.as_json(), sent=answered, answered=answered, seconds=0.5, bytes_in=900)
    found.cpu, found.own_cpu = 0.001, 0.0001
    return found


def figures() -> list[Figure]:
    """One figure for every table that there is, with values that occur nowhere else."""
    number = count(101)
    tables = [*(("calls", "HTTP", f"c={c}") for c in (1, 8)), ("open", "HTTP", "7000/s"), ("list", "10 tools", "c=1")]
    tables += [("sessions", "set-up", "c=1"), ("hung", "calls", "c=8"), ("start", "10 tools", "first call")]
    tables += [(table, "5", load) for table in GROWTH for load in ("c=1", "c=32", "list")]
    return [
        Figure(
            table=table, point=point, load=load, target=target, answered=9, per_second=next(number), p50=next(number),
            p99=next(number), cpu=next(number), resident=next(number), ready=next(number), first=next(number),
            driver_cpu=5.5,
        )
        for table, point, load in tables
        for target in (DIRECT, CALLGATE)
    ]  # fmt: skip


def run() -> Results:
    pace = Pace(rounds=2, growth_rounds=1, seconds=0.5, starts=1)
    method = {name: float(getattr(pace, name)) for name in pace.__struct_fields__}
    return Results(
        mode="quick", started="2026-01-02 03:04 UTC", machine={"cores": "2"}, versions={}, method=method,
        figures=figures(), skipped={"ContextForge default": "not installed\nsecond line"},
    )  # fmt: skip


def drawn(found: Results) -> str:
    out = io.StringIO()
    show.show(found, Console(file=out, width=200))
    return out.getvalue()


def test_slices_add_up() -> None:
    total = Total()
    total.add(report(1000), 10)
    total.add(report(3000), 30)
    figure = total.figure(("calls", "HTTP", "c=1", CALLGATE), gateway=True, counted=True)
    assert (figure.answered, figure.per_second, figure.upstream, figure.size) == (20, 20, 2, 90)
    assert figure.p50 == pytest.approx(1, rel=0.01)
    assert figure.greatest == 3
    assert figure.cpu == pytest.approx(100)
    assert figure.driver_cpu == pytest.approx(10)


def test_what_was_not_measured_is_not_a_nought() -> None:
    figure = Total().figure(("calls", "HTTP", "c=1", DIRECT), gateway=False, counted=False)
    assert (figure.cpu, figure.upstream, figure.size, figure.driver_cpu) == (None, None, None, None)


def test_the_page_shows_the_figures_of_the_run() -> None:
    text = page.page(run())
    shown = set(re.findall(r"\d+", text[: text.index("## Method")]))
    called = [figure for figure in figures() if figure.table in show.TITLES]
    assert {f"{value:.0f}" for figure in called for value in (figure.per_second, figure.p50, figure.p99)} <= shown
    assert "5.5 µs" in text
    assert "not installed" in text
    assert "second line" not in text


def test_the_page_has_no_figures_without_a_run() -> None:
    text = page.page(replace(run(), figures=[], machine={}))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    assert not any(re.search(r"\d", line) for line in tables)


def test_the_page_does_not_name_the_machine() -> None:
    real = replace(run(), machine=results.machine(), versions=results.versions())
    assert socket.gethostname() not in page.page(real).split()
    assert {"processor", "cores", "memory", "system", "python"} == set(real.machine)


def test_wrong_answers_are_shown() -> None:
    found = run()
    found.figures[0].errors, found.figures[0].reasons = 3, ["HTTP 500"]
    assert "3 wrong" in drawn(found)
    assert "HTTP 500" in drawn(found)
    assert "wrong ·" not in drawn(run())


def test_growth_puts_the_loads_of_a_point_in_one_row() -> None:
    found = run()
    row = growth_rows(found, "grow tools")[0]
    one = found.find(("grow tools", "5", "c=1", CALLGATE))
    many = found.find(("grow tools", "5", "c=32", CALLGATE))
    assert one is not None
    assert many is not None
    assert row[:4] == ["5", f"{many.per_second:.0f}", f"{many.cpu:.0f}", f"{one.p50:.0f}"]


def test_results_survive_the_file(tmp_path: Path) -> None:
    results.write(run(), tmp_path / "new" / "out.json")
    again = results.read(tmp_path / "new" / "out.json")
    assert again == run()


def test_compare_prints_ratios() -> None:
    before, after = run(), run()
    for figure in after.figures:
        figure.per_second *= 2
        figure.p50 *= 0.5
    found = {tuple(row[:3]): row[3:5] for row in compare.rows(before, after)}
    assert found[("calls HTTP", "c=8", CALLGATE)] == ["2", "0.5"]
    assert len(found) == len(before.figures)


def test_compare_finds_the_open_loop_whatever_its_rate() -> None:
    before, after = run(), run()
    for figure in after.of("open"):
        figure.load = "9000/s"
    assert any(row[:3] == ["open HTTP", "9000/s", CALLGATE] for row in compare.rows(before, after))


def test_compare_leaves_out_what_only_one_run_has() -> None:
    before, after = run(), run()
    before.figures = before.of("list")
    assert {row[0] for row in compare.rows(before, after)} == {"list 10 tools"}


def test_only_callgates_own_mistakes_fail_the_run() -> None:
    found = run()
    assert not failed(found)
    found.figures[0].errors = 1  # of no gateway at all
    assert not failed(found)
    found.figures[1].errors = 1
    assert failed(found)
    assert failed(replace(run(), skipped={f"{CALLGATE}: open": "did not start"}))


def test_the_command_line() -> None:
    chosen = arguments(["full", "--only", "list", "--only", "hung", "--write-docs"])
    assert (chosen.mode, chosen.only, chosen.write_docs, chosen.install_peers) == (
        "full",
        ["list", "hung"],
        True,
        False,
    )
    assert arguments([]).mode == "quick"
    assert set(IN_QUICK) < set(SCENARIOS)
