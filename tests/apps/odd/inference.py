"""Does what badly behaved apps do: needs no package at all, so any interpreter can run it."""

import asyncio
import ctypes
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

from .helper import WORD, square


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class App:
    def __init__(self):
        self.asked_to_cancel = False
        self.runs = 0

    async def setup(self, config, metadata):
        print("setup prints")
        self.config = config
        self.variant = metadata.app_variant
        self.got = metadata.get("app_variant"), metadata.get("nothing", "default")
        if config.get("fail"):
            raise RuntimeError("the weights are gone")
        if config.get("block"):
            time.sleep(60)

    async def run(self, input_data):
        self.runs += 1
        self.asked_to_cancel = False
        result = getattr(self, "_" + input_data["do"])(input_data)
        return await result if inspect.isawaitable(result) else result

    async def on_cancel(self):
        print("on_cancel was called")
        self.asked_to_cancel = True
        return True

    async def unload(self):
        print("unload prints")

    def _echo(self, given):
        return {"got": given, "runs": self.runs, "word": WORD}

    def _know(self, given):
        return {
            "config": self.config,
            "variant": self.variant,
            "got": list(self.got),
            "cwd": os.getcwd(),
            "env": dict(os.environ),
            "stdin": sys.stdin.read(),
            "fds": sorted(int(name) for name in os.listdir("/proc/self/fd")),
            "group": os.getpgrp() == os.getpid(),
            "version": list(sys.version_info[:2]),
        }

    def _nothing(self, given):
        return None

    def _raise(self, given):
        raise ValueError(given["text"])

    def _raise_short(self, given):
        raise ValueError(given["text"]) from type("OutOfMemoryError", (RuntimeError,), {})("no more")

    def _abort(self, given):
        os.write(2, given["text"].encode() + b"\n")
        os.abort()

    def _raise_unprintable(self, given):
        raise Unprintable

    def _sys_exit(self, given):
        sys.exit(3)

    def _os_exit(self, given):
        print("last words", flush=True)
        os._exit(3)

    def _signal(self, given):
        os.kill(os.getpid(), given["number"])
        time.sleep(10)

    def _segfault(self, given):
        ctypes.string_at(0)

    def _flood(self, given):
        for number in range(given["lines"]):
            print(number)
        return given["lines"]

    def _binary(self, given):
        os.write(1, b"\xff\xfe\x00binary\n" + b"x" * 200_000 + b"\nafter\n")
        os.write(2, b"10%\r20%\r30%\r\ndone\nunfinished")

    def _child_prints(self, given):
        subprocess.run(["sh", "-c", "echo from a child; echo to stderr >&2"], check=True)

    def _c_prints(self, given):
        ctypes.CDLL(None).printf(b"from C\n")

    def _nan(self, given):
        return {"scores": [1.0, float("nan")]}

    def _not_json(self, given):
        return {"thing": threading.Lock()}

    def _circle(self, given):
        circle = []
        circle.append(circle)
        return circle

    def _large(self, given):
        return "x" * given["bytes"]

    def _block(self, given):
        time.sleep(given["seconds"])
        return "slept"

    def _block_term(self, given):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("blocked", flush=True)
        time.sleep(60)

    async def _wait(self, given):
        print("waiting", flush=True)
        await asyncio.sleep(given["seconds"])
        return "waited"

    async def _listen(self, given):
        print("waiting", flush=True)
        while not self.asked_to_cancel:
            await asyncio.sleep(0.01)
        return "heard"

    async def _deaf(self, given):
        print("waiting", flush=True)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("not now", flush=True)

    def _fork(self, given):
        if os.fork() == 0:
            return "from the child"
        os.wait()
        return "from the parent"

    def _leave_child(self, given):
        return subprocess.Popen(["sleep", "300"]).pid

    def _leave_thread(self, given):
        threading.Thread(target=time.sleep, args=(300,)).start()

    def _spawn(self, given):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(square, [2, 3])

    def _close_streams(self, given):
        sys.stdout.close()
        return "closed"

    def _move(self, given):
        os.chdir("/")
        return os.getcwd()

    def _move_and_remove(self, given):
        os.chdir(tempfile.mkdtemp())
        os.rmdir(os.getcwd())

    def _file(self, given):
        with tempfile.NamedTemporaryFile(suffix=".txt", delete=False) as file:
            file.write(b"hello")
        return {"files": [File(file.name)], "a/b": File("/does/not/exist.png")}

    def _partials(self, given):
        for number in range(given["count"]):
            print("line", number)
            yield {"number": number}
            time.sleep(given.get("pause", 0))


class File:
    def __init__(self, path=None, uri=None):
        self.path, self.uri = path, uri
