"""`make chaos`: print the report; exit 1 when anything was lost."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from faults.chaos.run import Plan, play


def main() -> int:
    plan = Plan(
        tasks=int(os.environ["TASKS"]),
        seed=int(os.environ["SEED"]),
        servers=os.environ["SERVERS"],
        server_kill_s=float(os.environ["SERVER_KILL_S"]),
        daemons_only=os.environ["ONLY"] == "daemons",
    )
    folder = Path(tempfile.mkdtemp(prefix="stoker-chaos-"))
    clean = False
    try:
        report = play(folder, plan)
        print("\n".join(report.lines()))
        clean = report.clean
    finally:
        if clean:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs, and what the server knew of the tasks that are left (keys.txt): {folder}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
