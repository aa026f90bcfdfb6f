"""What runs end with: files that unload deletes or that were never there, loops, leftovers."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIXED = "/tmp/stoker-trap.txt"


class File:
    def __init__(self, path):
        self.path, self.uri = path, None


class App:
    def setup(self):
        self.folder = tempfile.mkdtemp()

    async def run(self, input_data: dict):
        result = getattr(self, input_data["do"])(input_data)
        return await result if asyncio.iscoroutine(result) else result

    def unload(self):
        shutil.rmtree(self.folder)
        print("unloaded")

    def file(self, given):
        path = Path(self.folder, "result.txt")
        path.write_text(given["text"])
        return {"file": File(path)}

    def missing(self, given):
        return {"image": File("/tmp/never written.png")}

    def fixed(self, given):
        Path(FIXED).write_text(given["text"])
        end = time.monotonic() + given["seconds"]
        while time.monotonic() < end and Path(FIXED).read_text() == given["text"]:
            time.sleep(0.01)
        return {"file": File(FIXED), "read": Path(FIXED).read_text()}

    def block(self, given):
        print("blocked", flush=True)
        while True:
            time.sleep(1)

    async def wait(self, given):
        print("waiting", flush=True)
        await asyncio.sleep(300)

    async def asked(self, given):
        print("waiting", flush=True)
        while not self.context.cancel_requested:
            await asyncio.sleep(0.01)
        return "heard"

    def late(self, given):
        """A child that prints when the run is long over."""
        code = "import time; time.sleep(%s); print('late', flush=True)" % given["seconds"]
        return subprocess.Popen([sys.executable, "-c", code]).pid

    def daemon(self, given):
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, b"%d" % os.getpid())
                time.sleep(300)
            os._exit(0)
        os.wait()
        return int(os.read(read, 20))

    def raises(self, given):
        raise RuntimeError("The picture is too dark.")

    def fine(self, given):
        return "fine"
