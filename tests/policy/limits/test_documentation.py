"""The examples of docs/limits.md load, and mean what the page says; mistakes in quotas are found with their places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callgate.config import QuotasStore, load
from callgate.errors import ConfigError
from callgate.policy import QuotaRules
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_load(tmp_path: Path) -> None:
    file = tmp_path / "callgate.yaml"
    found = []
    for text in EXAMPLES:
        file.write_text(text, "utf-8")
        found.append(load(file, env={}, cwd=tmp_path, system=tmp_path / "none").settings)
    first, second = found
    rules = QuotaRules(first)
    assert [f"{limit.quota} {limit.measure}" for limit in rules.limits] == [
        "fair rate", "browsers concurrency", "interns calls", "research-team tokens", "research-team cost",
    ]  # fmt: skip
    price = rules.price("llm", "ask")
    assert price is not None and (price.call, price.tokens) == (0.002, 0.03)
    assert isinstance(second.quotas_store, QuotasStore) and second.quotas_store.when_away == "local"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quotas: [{id: a, rate: sixty}]", "`sixty` is not so much in a time"),
        ("quotas: [{id: a, rate: 0/min}]", "`0/min` is not so much in a time"),
        ("quotas: [{id: a, rate: 1/month}]", "a rate has no months"),
        ("quotas: [{id: a}]", "the quota `a` bounds nothing"),
        ("quotas: [{id: a, calls: 5/30s}]", "the calendar knows no period of `30s`"),
        ("quotas: [{id: a, calls: 5/month, period: sliding}]", "months differ in length"),
        ("quotas: [{id: a, calls: 0.5/day}]", "less than one is never reached"),
        ("quotas: [{id: a, calls: 5/day, burst: 3}]", "`burst` has no effect without `rate`"),
        ("quotas: [{id: a, calls: 5/day, soft: '80'}]", "`80` is no share"),
        ("quotas: [{id: a, calls: 5/day, of: []}]", "`of` names nothing"),
        ("quotas: [{id: a, calls: 5/day, per: [tool, tool]}]", "`per` names something twice"),
        ("quotas: [{id: a, calls: 5/day}, {id: a, calls: 6/day}]", "there are two quotas `a`"),
        ("quotas: [{id: a, cost: 5/day}]", "nothing has a price"),
        ("prices: {git: 1}", "`git` is no glob over `server/tool`"),
        ("quotas_store: http://example.org", "this is no address of a Redis or Valkey"),
        ("quotas_store: redis://user:word@example.org", "the address holds a password"),
        ("quotas_store: {url: 'redis://h', password: word}", "the password stands in the file"),
    ],
)
def test_mistakes_are_found(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "callgate.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as wrong:
        load(file, env={}, cwd=tmp_path, system=tmp_path / "none")
    problems = wrong.value.problems or (wrong.value,)
    assert [each.message for each in problems] == [said]
    assert problems[0].place is not None and problems[0].hint
