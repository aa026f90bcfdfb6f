"""`make chaos`: print the report; exit 1 when anything was lost."""

import os
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
    with tempfile.TemporaryDirectory(prefix="stoker-chaos-", ignore_cleanup_errors=True) as folder:
        report = play(Path(folder), plan)
    print("\n".join(report.lines()))
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
