"""Systems that the outside clients talk to, with the example apps on them."""

import tempfile
from pathlib import Path

import pytest
from helpers import EXAMPLES, start_system


@pytest.fixture(scope="session")
def system_with_apps(system):
    """The shared system, with the light example apps deployed."""
    system.deploy(EXAMPLES / "echo")
    system.deploy(EXAMPLES / "slow")
    return system


@pytest.fixture(scope="session")
def system_with_ocr(system_with_apps):
    """The shared system, with the OCR app as well: its environment is large."""
    system_with_apps.deploy(EXAMPLES / "ocr")
    return system_with_apps


@pytest.fixture(scope="module")
def restless_system():
    """A system that repeats the task on a quiet stream every second."""
    with tempfile.TemporaryDirectory(prefix="stoker restless ", ignore_cleanup_errors=True) as folder:
        running = start_system(Path(folder) / "data", "--workers", "1", STOKER_RESEND_S="1")
        running.deploy(EXAMPLES / "slow")
        yield running
        running.stop()
