"""Prints in all the ways that apps do; needs no package."""

import asyncio
import inspect
import os
import subprocess
import sys
import time


class App:
    async def setup(self, config, metadata):
        print("setup prints")

    async def run(self, input_data):
        result = getattr(self, "_" + input_data["do"])(input_data)
        return await result if inspect.isawaitable(result) else result

    async def on_cancel(self):
        self.cancelled = True
        return True

    def _lines(self, given):
        for number in range(given["count"]):
            print(f"line {number} {'x' * given.get('size', 0)}")
        return {"printed": given["count"]}

    def _flood(self, given):
        """Megabytes at a given pace: `mb` in `seconds`, or as fast as it goes; `silent`: to nowhere."""
        out = os.open(os.devnull, os.O_WRONLY) if given.get("silent") else 1
        block = "".join(f"{n:06} {'x' * 92}\n" for n in range(100)).encode()
        blocks, begun = given["mb"] * 1_000_000 // len(block), time.monotonic()
        for number in range(blocks):
            os.write(out, block)
            if seconds := given.get("seconds"):
                time.sleep(max(0.0, begun + seconds * number / blocks - time.monotonic()))
        return {"lines": blocks * 100, "seconds": time.monotonic() - begun}

    def _binary(self, given):
        os.write(1, bytes(range(256)) * 40 + b"\n")
        return {}

    def _long(self, given):
        print("y" * 200_000)
        print("after")
        return {}

    def _progress(self, given):
        for percent in range(0, 101, 10):
            sys.stderr.write(f"\r{percent}%|")
            sys.stderr.flush()
        sys.stderr.write("\n")
        return {}

    def _child(self, given):
        """A child that prints after the run has returned."""
        code = "import time; time.sleep(0.5); print('from a child', flush=True)"
        subprocess.Popen([sys.executable, "-c", code])
        print("the run is over")
        return {}

    async def _wait(self, given):
        """Print, and go on when the task is cancelled."""
        self.cancelled = False
        print("waiting", flush=True)
        while not self.cancelled:
            await asyncio.sleep(0.02)
        print("seen", flush=True)
        return {}
