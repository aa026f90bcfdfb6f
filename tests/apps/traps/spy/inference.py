"""Looks wherever its variables and its working directory lead."""

import os
import time
from pathlib import Path
from typing import List, Optional

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File

HOLD_S = 60


class Setup(BaseAppInput):
    who: str = ""


class In(BaseAppInput):
    file: Optional[File] = None
    marker: str = ""


class Out(BaseAppOutput):
    found: List[str] = []
    settings: List[str] = []


def holds(path, marker):
    try:
        return path.is_file() and marker.encode() in path.read_bytes()
    except OSError:
        return False


class App(BaseApp):
    async def setup(self, config: Setup) -> None:
        pass

    async def run(self, data: In) -> Out:
        if data.file is not None:
            print(f"holding {Path(data.file.path).read_text()}", flush=True)
            time.sleep(HOLD_S)
            return Out()
        named = [part for value in os.environ.values() for part in value.split(os.pathsep)]
        places = [Path.cwd(), *(Path(part) for part in named if part.startswith("/tmp/") and os.path.isdir(part))]
        found = [str(path) for place in places for path in place.rglob("*") if holds(path, data.marker)]
        return Out(found=found, settings=[name for name in os.environ if name.startswith("STOKER_")])
