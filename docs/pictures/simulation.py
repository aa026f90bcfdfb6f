"""docs/pictures/simulation-*.png: parts of the report of `stoker simulate`, from a made-up trace.

`python docs/pictures/simulation.py` writes them anew; it needs Chromium (CHROMIUM=path), so `make generate` leaves them alone.
"""

import os
import subprocess
import tempfile
from pathlib import Path

from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.bounds import UNLIMITED
from stoker_scheduler.simulation.compare import OURS, POLICIES, compare, distances
from stoker_scheduler.simulation.fleet_file import FleetFile, Machine, Sizes
from stoker_scheduler.simulation.page import page
from stoker_scheduler.simulation.synthetic import synthetic

HERE = Path(__file__).parent
CHROMIUM = os.environ.get("CHROMIUM", "chromium")
TASKS = 5000
FLEET = FleetFile(machines=(Machine(count=6, vram_gb=24),), sizes=Sizes(gb=10))
WIDTH = 1200
SCHEMES = {"dark": 0, "light": 1}
"""What Chromium's setting of the preferred colour scheme calls them."""
TIMEOUT_S = 120


def report() -> str:
    """The page, with the scheduler's own charts alone."""
    trace, runs = synthetic(TASKS, models=30, every_s=16, seed=1), {}
    found = compare(trace, FLEET, POLICIES, Rules(), on_done=lambda s, o: runs.update({s.policy: o}))
    bounds = distances(runs[OURS], runs[UNLIMITED], FLEET)
    title = f"a made-up trace: {len(trace)} tasks on {FLEET.workers} workers"
    return page(title, found, bounds, {OURS: runs[OURS]}, OURS, UNLIMITED)


def main() -> None:
    html = report()
    head, charts = html.split(f"<h2>{OURS}</h2>", 1)
    style = head[: head.index("<h1>")]
    of_hour, of_trace = charts.split("<h3>loaded copies", 1)
    pieces = {
        "simulation-table": (head, 780, "light"),
        "simulation-hour": (f"{style}{of_hour}", 600, "light"),
        "simulation-hour-dark": (f"{style}{of_hour}", 600, "dark"),
        "simulation-trace": (f"{style}<h3>loaded copies{of_trace}", 500, "light"),
    }
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "page.html"
        for name, (text, height, scheme) in pieces.items():
            at.write_text(text, encoding="utf-8")
            picture = HERE / f"{name}.png"
            shoot(at, picture, height, SCHEMES[scheme])
            print(f"{picture.name}: {picture.stat().st_size // 1000} KB")


def shoot(page_file: Path, picture: Path, height: int, scheme: int) -> None:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={WIDTH},{height}", f"--blink-settings=preferredColorScheme={scheme}"]
    command += [f"--screenshot={picture}", page_file.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)


if __name__ == "__main__":
    main()
