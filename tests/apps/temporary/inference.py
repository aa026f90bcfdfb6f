"""Fixed names below /tmp: written by setup, left by runs, held open, named by the app, left by daemons."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIXED = "/tmp/stoker-test-output.txt"


class File:
    def __init__(self, path):
        self.path, self.uri = path, None


class App:
    async def setup(self, config):
        self.word = config.get("word", "")
        Path("/tmp/of-setup").mkdir(exist_ok=True)
        Path("/tmp/of-setup/weights").write_text("weights")

    async def run(self, given):
        return getattr(self, "_" + given["do"])(given)

    def _meet(self, given):
        """Write the fixed name, wait for the other process, and return what stands there."""
        Path(FIXED).write_text(self.word)
        Path(given["mine"]).touch()
        end = time.monotonic() + 30
        while not Path(given["theirs"]).exists() and time.monotonic() < end:
            time.sleep(0.005)
        return {"read": Path(FIXED).read_text(), "file": File(FIXED)}

    def _refuse(self, given):
        """As ffmpeg without -y: a file that exists is an error."""
        with open(FIXED, "x") as file:
            file.write(self.word)
        return {"file": File(FIXED)}

    def _leave(self, given):
        self.opened = open("/tmp/opened", "w")
        self.folder = tempfile.TemporaryDirectory(dir="/tmp")
        Path(self.folder.name, "cached").write_text("cached")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind("/tmp/socket")
        Path("/tmp/left").mkdir()
        Path("/tmp/left/deep").mkdir()
        Path("/tmp/left/deep/er").write_text("left")
        Path("/tmp/of-setup/more").write_text("left")
        Path("/var/tmp/left").write_text("left")
        return self.folder.name

    def _close(self, given):
        self.opened.close()

    def _list(self, given):
        return sorted(
            str(path)
            for root in ("/tmp", "/var/tmp")
            for path in Path(root).rglob("*")
            if not str(path).startswith(tuple(given.get("but", ("/nothing",))))
        )

    def _daemon(self, given):
        code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        print(os.getpid(), flush=True)\n        time.sleep(300)\n    os._exit(0)"
        with tempfile.TemporaryFile("w+") as said:
            subprocess.run([sys.executable, "-c", code], stdout=said, check=True)
            while not said.seek(0) and not (text := said.read()).endswith("\n"):
                time.sleep(0.01)
        return int(text)
