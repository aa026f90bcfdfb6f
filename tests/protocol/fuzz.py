"""`make fuzz MINUTES=n`: new stories for the state machines of the protocol, until the time is over or one fails."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from stoker.embedded import EmbeddedServer

sys.path.insert(0, str(Path(__file__).parents[1]))
from protocol.lifecycle import Lifecycle
from protocol.session_lifecycle import SessionLifecycle

STORIES_A_ROUND = 100


def main(minutes: float) -> None:
    """Play rounds of stories; a failing one is shortened and printed by Hypothesis, and ends the run."""
    deadline = time.monotonic() + minutes * 60
    chosen = settings(
        max_examples=STORIES_A_ROUND,
        stateful_step_count=80,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    rounds = 0
    while time.monotonic() < deadline:
        with tempfile.TemporaryDirectory(prefix="stoker-fuzz-") as folder:
            server = EmbeddedServer(Path(folder))
            asyncio.run(server.start())
            try:
                for machine in (Lifecycle, SessionLifecycle):
                    machine.url = server.url
                    run_state_machine_as_test(machine, settings=chosen)
            finally:
                asyncio.run(server.stop())
        rounds += 1
        print(f"{2 * rounds * STORIES_A_ROUND} stories, no rule broken", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
