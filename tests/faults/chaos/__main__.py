"""`make chaos TASKS=n SEED=n [SERVER_KILL_S=20]`: print the report; exit 1 when anything was lost."""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from faults.chaos.run import play


def main() -> int:
    tasks, seed = int(os.environ.get("TASKS", "5000")), int(os.environ.get("SEED", "1"))
    with tempfile.TemporaryDirectory(prefix="stoker-chaos-", ignore_cleanup_errors=True) as folder:
        report = play(Path(folder), tasks, seed, float(os.environ.get("SERVER_KILL_S", "0")))
    print("\n".join(report.lines()))
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
