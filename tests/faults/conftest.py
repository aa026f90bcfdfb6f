"""Systems that are there to be broken: a short lease, two CPU workers, the apps that the table needs."""

import tempfile
from pathlib import Path

import pytest
from helpers import EXAMPLES, running_system

LEASE_S = "3"


@pytest.fixture(scope="module")
def breakable():
    """A system whose parts may be killed; `stoker up` starts them again."""
    with (
        tempfile.TemporaryDirectory(prefix="stoker-faults-", ignore_cleanup_errors=True) as folder,
        running_system(
            Path(folder) / "data", "--workers", "2", STOKER_LEASE_S=LEASE_S, STOKER_TELEMETRY_S="1"
        ) as running,
    ):
        running.deploy(EXAMPLES / "echo")
        running.deploy(EXAMPLES / "slow")
        yield running
