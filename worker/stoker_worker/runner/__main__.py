"""An app's process: `<the app's python> -I <this folder> <socket fd> <pid of the daemon> <folders as JSON>`.

Standard library only. Messages are JSON objects with a `type`:

    init     -> ready                        import the app's folder
    setup    -> setup_done                   run its setup
    run      -> partial, delta ... result | error   run one function
    tidy                                     the files of its result are stored: remove what it left
    park     -> parked                       leave the devices; the state stays in this process
    unpark   -> unparked                     take the devices again
    describe -> description                  its functions and schemas
    cancel                                   end the run that goes on
    stop                                     unload, then exit

What fails before a run is answered with `failed`. What a run sends has the number of its order: the daemon may have
given it up, and must not take it for the next one's. A thread reads the socket, everything of the app happens on the
main thread's event loop: a blocked loop delays a cancel, and the daemon's signals end what does not listen.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
HERE = Path(__file__).parent


def die_with(parent: int) -> ctypes.CDLL:
    """Have the kernel kill this process when the daemon dies; the C library, for its buffers."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked
    return libc


import own_tmp  # noqa: E402


def isolate() -> "tuple[own_tmp.Isolation | None, str]":
    """A /tmp of our own where the daemon wants it and the kernel allows it; else None, and why."""
    if not FOLDERS["own_tmp"]:
        return None, "it is switched off"
    interpreter = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent), str(HERE)]
    try:
        isolation = own_tmp.isolate(FOLDERS["work"], [*FOLDERS["keep"], *interpreter])
    except own_tmp.Refused as refused:
        return None, str(refused)
    except OSError as error:
        sys.exit(f"A /tmp of its own could not be made for the app: {error}")
    os.environ["TMPDIR"] = next(iter(isolation.places))
    return isolation, ""


FOLDERS = json.loads(sys.argv[3])
"""`work`: the instance's own; `own_tmp`: whether it gets a /tmp; `keep`: what stays visible below /tmp;
`cache_bytes`: what may stay of the app's downloads."""
ISOLATION, SHARED_BECAUSE = isolate()
libc = die_with(int(sys.argv[2]))  # after the namespaces: new credentials take the wish back

import guard  # noqa: E402

guard.start(int(sys.argv[1]), alone=ISOLATION is not None)

import call  # noqa: E402
import frames  # noqa: E402 - loaded here, because the folder leaves the path below
import loader  # noqa: E402
import metadata as meta  # noqa: E402
import shortage  # noqa: E402
import tidy  # noqa: E402
import values  # noqa: E402
import wire  # noqa: E402
import yields  # noqa: E402


class Runner:
    """Takes the daemon's messages in order; a cancel is taken between them."""

    def __init__(self, link: wire.Wire) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._orders: asyncio.Queue[dict] = asyncio.Queue()
        self._app: object = None
        self._context = meta.Context()
        self._metadata: dict = {}
        self._home: Path | None = None
        self._run: asyncio.Task | None = None
        self._running = ""
        self._cancelled = ""
        self._cancelling: asyncio.Task | None = None
        self._early: dict | None = None  # a cancel that came before its run
        self._results: list[str] = []
        self._leftovers = tidy.Leftovers(
            list(ISOLATION.places) if ISOLATION else [os.environ["TMPDIR"]],
            ISOLATION.kept if ISOLATION else [],
            alone=ISOLATION is not None,
        )

    def take(self, message: dict) -> None:
        """A message came in; called by the reading thread."""
        if message["type"] == "cancel":
            self._cancelled = message["task_id"]  # seen also by a run that blocks the loop until it ends
            if self._running == message["task_id"]:
                self._context.cancel()
            self._loop.call_soon_threadsafe(self._begin_cancel, message)
        else:
            self._loop.call_soon_threadsafe(self._orders.put_nowait, message)

    async def serve(self) -> None:
        """Work until told to stop."""
        while True:
            message = await self._orders.get()
            kind = message["type"]
            if kind == "stop":
                await self._unload()
                return
            if kind == "run":
                await self._on_run(message)
            elif kind == "tidy":
                self._tidy()
            else:
                await self._before_runs(kind, message)

    async def _before_runs(self, kind: str, message: dict) -> None:
        """All but a run: done, or told why not."""
        steps = {"init": self._init, "setup": self._setup, "describe": self._describe}
        steps |= {"park": self._park, "unpark": self._unpark}
        try:
            answer = await steps[kind](message)
        except (values.BadInput, loader.BadApp) as error:
            answer = {"type": "failed", "message": str(error), "fault": _fault_of(error)}
        except BaseException as error:  # SystemExit too: a library that exits while it is imported
            _rethrow_cancel(error)
            _print_traceback(error)
            answer = {"type": "failed", "message": _message_of(error), "fault": "app"}
            answer["vram_short"] = shortage.is_short(error)
        flush()
        self._link.tell(**{"kind": answer.pop("type"), **answer})

    async def _init(self, message: dict) -> dict:
        self._app = loader.load_app(message["app_dir"], message["package_dir"])
        self._context = meta.equip(self._app)
        own = os.readlink("/proc/self/ns/mnt") if ISOLATION else ""
        parks = call.can_park(self._app)
        return {"type": "ready", "namespace": own, "shared_because": SHARED_BECAUSE, "parks": parks}

    async def _setup(self, message: dict) -> dict:
        self._metadata = message["metadata"]
        await call.set_up(self._app, message["setup"], self._metadata)
        self._home = Path.cwd()
        return {"type": "setup_done"}

    async def _park(self, _message: dict) -> dict:
        await call.hook(self._app, "park")
        gc.collect()  # what holds memory of a device may be part of a ring
        return {"type": "parked"}

    async def _unpark(self, _message: dict) -> dict:
        await call.hook(self._app, "unpark")
        return {"type": "unparked"}

    async def _describe(self, _message: dict) -> dict:
        return {"type": "description", **loader.describe_app(self._app)}

    async def _on_run(self, message: dict) -> None:
        if self._home is not None:
            with contextlib.suppress(OSError):
                os.chdir(self._home)  # where setup left it; a run may have moved to what is gone now
        self._leftovers.begin()
        self._context.begin()
        known = {name: value for name, value in message["metadata"].items() if value}
        message["metadata"] = self._metadata | known
        self._running = message["task_id"]
        self._run = asyncio.ensure_future(self._answer_of(message))
        if self._early is not None:
            self._begin_cancel(self._early)
        try:
            payload = await self._run
        except asyncio.CancelledError:
            payload = _error(message["run"], "cancelled", "cancelled")  # cancelled before its first step
        self._run, self._running, self._early = None, "", None
        if self._cancelling is not None:
            self._cancelling.cancel()
            self._cancelling = None
        flush()
        self._link.send(payload)
        if not self._results:
            self._tidy()  # nobody comes for a file of it

    async def _answer_of(self, message: dict) -> bytes:
        """The last message of a run."""
        run = message["run"]
        try:
            sink = yields.Sink(partial(self._send_partial, run), partial(self._send_delta, run))
            output, files, meta = await call.run(self._app, message, sink)
            payload = _result(run, output, [_seen_outside(file) for file in files], meta)
        except values.BadInput as error:
            return _error(run, "input", str(error), error.fields)
        except (values.BadOutput, loader.BadApp, frames.FrameTooLarge) as error:
            return _error(run, "app", str(error))
        except asyncio.CancelledError:
            ours = self._cancelled == message["task_id"]
            return _error(run, "cancelled", "cancelled" if ours else "The app cancelled its own run")
        except BaseException as error:  # SystemExit too: a run must not end the process
            _print_traceback(error)
            return _error(run, "app", _message_of(error), vram_short=shortage.is_short(error))
        else:
            self._results = [file["path"] for file in files]
            return payload

    def _send_partial(self, run: int, output: object) -> None:
        self._link.send(b'{"type":"partial","run":%d,"output":%b}' % (run, values.encode(output)))

    def _send_delta(self, run: int, seq: int, delta: dict) -> None:
        self._link.send(b'{"type":"delta","run":%d,"seq":%d,"output":%b}' % (run, seq, values.encode(delta)))

    def _begin_cancel(self, message: dict) -> None:
        if self._run is None:
            self._early = message  # its run waits behind what is done now
        elif self._running == message["task_id"] and self._cancelling is None:
            self._context.cancel()
            self._cancelling = asyncio.ensure_future(self._cancel_run(self._run, message["grace_s"]))

    async def _cancel_run(self, run: asyncio.Task, grace_s: float) -> None:
        """Ask the app first; one that does not stop by itself in half of the time is cancelled."""
        try:
            asked = await asyncio.wait_for(call.ask_to_cancel(self._app), grace_s / 2)
            if asked or self._context.is_watched():
                await asyncio.wait({run}, timeout=grace_s / 2)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _print_traceback(error)
        run.cancel()

    def _tidy(self) -> None:
        try:
            self._leftovers.remove(self._app, self._results)
            self._leftovers.trim(self._app, os.environ.get("FILE_CACHE_DIR", ""), FOLDERS["cache_bytes"])
        except Exception as error:  # what an app made of its folders must not end it
            _print_traceback(error)
        self._results = []

    async def _unload(self) -> None:
        try:
            await call.unload(self._app)
        except BaseException as error:
            _print_traceback(error)
        flush()


def flush() -> None:
    """Have everything printed lie in the pipes: what follows on the socket comes after it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    libc.fflush(None)


def _result(run: int, output: object, files: "list[dict]", meta: object) -> bytes:
    parts = (run, values.encode(output), values.encode(files), values.encode(meta))
    payload = b'{"type":"result","run":%d,"output":%b,"files":%b,"meta":%b}' % parts
    if len(payload) > frames.MAX_FRAME_BYTES:
        size = len(payload) // 1024**2
        raise frames.FrameTooLarge(f"The output is {size} MB of JSON. Return large data as a File.")
    return payload


def _seen_outside(file: dict) -> dict:
    """A file of a result, with its path as the daemon must open it, and as the app named it."""
    path = file["path"]
    return file | {"path": ISOLATION.outside(path) if ISOLATION else path, "named": path}


def _error(
    run: int, fault: str, message: str, fields: "list[dict] | None" = None, *, vram_short: bool = False
) -> bytes:
    error = {"type": "error", "run": run, "fault": fault, "message": message, "fields": fields or []}
    return values.encode(error | {"vram_short": vram_short})


def _fault_of(error: Exception) -> str:
    return "input" if isinstance(error, values.BadInput) else "app"


def _message_of(error: BaseException) -> str:
    """The app's own words; they are written for its users."""
    if isinstance(error, SystemExit):
        return f"The app called exit({error.code!r})"
    try:
        text = str(error).strip()
    except Exception:
        text = ""
    return text or type(error).__name__


def _print_traceback(error: BaseException) -> None:
    """On stderr, without the runner's own frames."""
    with contextlib.suppress(Exception):
        trace = error.__traceback__
        while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == HERE:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace or error.__traceback__)


def _rethrow_cancel(error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        raise error


async def _serve(link: wire.Wire) -> None:
    runner = Runner(link)
    link.on_message = runner.take
    link.start()
    await runner.serve()


def main() -> None:
    """Serve one app until the daemon says stop or is gone."""
    fd = int(sys.argv[1])
    wire.close_others(fd)
    link = wire.Wire(fd)
    sys.path[:] = [path for path in sys.path if Path(path) != HERE]
    for name, module in list(sys.modules.items()):
        if name != "__main__" and os.path.dirname(getattr(module, "__file__", None) or "") == str(HERE):
            del sys.modules[name]  # an app may have modules of these names
    sys.argv = ["inference.py"]
    asyncio.run(_serve(link))
    flush()
    os._exit(0)  # threads that the app left behind must not hold the process


if __name__ == "__main__":
    main()
