from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.office import OFFICE, POLICY, Office, start


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A gateway with keys and a policy, for every test of the session; tests tell their calls apart by id."""
    running = start(tmp_path_factory.mktemp("office") / "gateway", OFFICE, POLICY)
    with running.running:
        yield running
