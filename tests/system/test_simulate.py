"""`stoker simulate` in several processes."""

import signal
import subprocess
import sys

import psutil
import pytest
from helpers import alive, environment, wait_gone, wait_until

from stoker_scheduler.simulation.synthetic import synthetic


@pytest.mark.long
def test_the_processes_of_a_simulation_end_with_it(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = (f"{each.at_s},{each.setup},{each.run_s}" for each in synthetic(20_000))
    trace.write_text("\n".join(["at_s,setup,run_s", *rows]))
    arguments = ["simulate", str(trace), "--shifts", "8", "--processes", "2", "--policy", "stoker"]
    running = subprocess.Popen([sys.executable, "-m", "stoker_cli", *arguments], env=environment())
    workers = set()
    try:
        workers = wait_until(lambda: busy_children(running.pid), "two processes that simulate")
        running.send_signal(signal.SIGTERM)
        running.wait(30)
        wait_gone(workers)
    finally:
        running.kill()
        running.wait(30)
        for pid in filter(alive, workers):
            psutil.Process(pid).kill()


def busy_children(pid):
    """The two workers, once both are past their start; multiprocessing has another child for itself."""
    children = [
        child for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())
    ]
    past = [child for child in children if sum(child.cpu_times()[:2]) > 1]
    return {child.pid for child in past} if len(past) == 2 else None
