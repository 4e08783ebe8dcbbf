from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.office import LAPTOP, OFFICE, POLICY, Office, start


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A gateway with keys and a policy."""
    running = start(tmp_path_factory.mktemp("office") / "gateway", OFFICE, POLICY)
    with running.running:
        yield running


@pytest.fixture(scope="session")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A gateway without keys and without a policy."""
    running = start(tmp_path_factory.mktemp("laptop") / "gateway", LAPTOP)
    with running.running:
        yield running
