"""Takes its time, prints, starts a child if it is told to, writes a file if it is told to."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEP_S = 0.05


@dataclass
class Setup:
    model: int = 0
    load_s: float = 0.1


@dataclass
class Call:
    number: int
    seconds: float = 0.0
    child: bool = False
    file: bool = False


class File:
    def __init__(self, path: str) -> None:
        self.path, self.uri = path, None


class App:
    def setup(self, config: Setup) -> None:
        time.sleep(config.load_s)
        self.model = config.model

    def run(self, call: Call) -> Any:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) if call.child else None
        end = time.monotonic() + call.seconds
        line = 0
        while time.monotonic() < end:
            line += 1
            print(f"{call.number} {line}", flush=True)
            time.sleep(STEP_S)
        if child is not None:
            if child.poll() is not None:
                raise RuntimeError("the child is gone")
            child.kill()
            child.wait()
        output = {"number": call.number, "model": self.model, "pid": os.getpid()}
        if call.file:
            path = Path(tempfile.mkdtemp(), "result.txt")
            path.write_text(str(call.number) * 10_000)
            output["file"] = File(str(path))
        return output
