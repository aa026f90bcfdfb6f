"""A short run of the chaos, with one seed. `make chaos` runs long ones."""

from pathlib import Path

import pytest
from faults.chaos.run import Plan, play

pytestmark = pytest.mark.long


@pytest.mark.timeout(400)
def test_under_faults_at_random_every_task_ends_once_and_says_why(tmp_path_factory):
    folder = Path(tmp_path_factory.mktemp("chaos"))
    report = play(folder, Plan(tasks=120, seed=1, least_faults=6))
    assert report.clean, "\n".join(report.lines())
    assert report.faults.total() >= 6
