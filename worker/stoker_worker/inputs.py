"""The files of a task's input, brought to this machine before its run.

    find > fetch or take from the cache > copy into the run's own directory > tell the app where they are

Each file lies in a directory of its own under its own name, and goes with the run. What the app gets for it is a
map {uri, path, content_type, size, filename}; the SDK takes `path` and fetches nothing by itself.
"""

import asyncio
import contextlib
import copy
import mimetypes
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import httpx
import msgspec

from stoker.core.events import Event
from stoker.core.messages import Assignment, LogType
from stoker.log import get_logger
from stoker_worker import input_names
from stoker_worker.fetch import Fetcher, OnProgress
from stoker_worker.fetch_answer import Version
from stoker_worker.fetch_policy import FetchFailed, shown
from stoker_worker.input_cache import Entry, InputCache, Stopped, now_ms
from stoker_worker.logs import OnLine
from stoker_worker.outcomes import InputFileFailed
from stoker_worker.pointers import dotted, get_at, put_at
from stoker_worker.procs import ShortPath
from stoker_worker.threads import unbroken

AT_ONCE: Final = 4
"""Files of one task that are fetched at the same time."""
AT_ONCE_IN_ALL: Final = 16
LARGE_BYTES: Final = 32 * 1024 * 1024
"""From here on the task's log says how far a file is."""
PROGRESS_S: Final = 5.0
SHOWN_CHARACTERS: Final = 80
_MIB: Final = 1024 * 1024

_log = get_logger("inputs")


class Inputs:
    """Fetches for all tasks of a daemon.

    Args:
        fetcher: brings a file from the web.
        cache: keeps files for the next task.
        folder: where the runs' directories are made; belongs to this object.
        timeout_s: bound of all files of a task together.
    """

    def __init__(self, fetcher: Fetcher, cache: InputCache, folder: Path, *, timeout_s: float) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._folder = folder
        self._timeout_s = timeout_s
        self._short = ShortPath(folder)
        self._plain: Path | None = None
        self._gate = asyncio.Semaphore(AT_ONCE_IN_ALL)
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def open(self) -> Path:
        """Start with an empty directory, and the cache as it was left; the path that apps see the directory under."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        self._plain = self._short.open()
        self._cache.open()
        return self._plain

    async def close(self) -> None:
        """Let go of connections."""
        await self._fetcher.close()
        self._short.close()

    async def fetch(self, order: Assignment, on_line: OnLine) -> Any:
        """The input of a task with its files here. May be cancelled at any time; `discard` follows in each case.

        Raises:
            InputFileFailed: names the field, the address and the reason.
        """
        task = order.task
        document = copy.deepcopy(task.input)
        found = [(pointer, value) for pointer in task.input_files if (value := _value(document, pointer))]
        gate = asyncio.Semaphore(AT_ONCE)
        run = self._run_folder(order)

        async def bring(number: int, pointer: str, value: Any) -> None:
            nonlocal document
            async with gate:
                job = _Job(order, pointer, run / str(number), on_line)
                document = put_at(document, pointer, await self._bring(job, value))

        try:
            async with asyncio.timeout(self._timeout_s), asyncio.TaskGroup() as group:
                for number, (pointer, value) in enumerate(found):
                    group.create_task(bring(number, pointer, value))
        except TimeoutError:
            raise InputFileFailed(
                f"The input's files were not here within {self._timeout_s:g} s (STOKER_FETCH_TIMEOUT_S)."
            ) from None
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        return document

    async def discard(self, order: Assignment) -> None:
        """Remove the files of a run."""
        await unbroken(shutil.rmtree, self._run_folder(order), ignore_errors=True)

    def _run_folder(self, order: Assignment) -> Path:
        return (self._plain or self._folder) / f"{order.task.id}.{order.attempt}"

    async def _bring(self, job: "_Job", value: Any) -> Any:
        """What the app gets for one value."""
        given = {"uri": value} if isinstance(value, str) else dict(value)
        named = given.pop("path", None)
        uri = given.get("uri")
        if not isinstance(uri, str) or not uri.strip():
            if named:
                raise job.failed(
                    f"{told(named)} is a path, and a worker reads none of its machine for a caller; {_DO}"
                )
            return given or None
        uri = uri.strip()
        try:
            if uri[:5].lower() == "data:":
                path, content_type = await self._from_data(job, uri, given)
            elif uri[:7].lower() == "http://" or uri[:8].lower() == "https://":
                path, content_type = await self._from_web(job, uri, given)
            else:
                raise job.failed(f"{told(uri)} is no address that a worker fetches; {_DO}")
        except (FetchFailed, input_names.BadDataUri) as error:
            raise job.failed(str(error)) from error
        except OSError as error:
            raise job.failed(
                f"it could not be stored on the worker's machine: {error.strerror or error}"
            ) from error
        return given | _facts(uri, path, given, content_type)

    async def _from_data(self, job: "_Job", uri: str, given: dict[str, Any]) -> tuple[Path, str]:
        content_type, data = await asyncio.to_thread(input_names.read_data_uri, uri, self._fetcher.max_bytes)
        path = job.place(_text(given.get("filename")), content_type)
        await unbroken(path.write_bytes, data)
        return path, content_type

    async def _from_web(self, job: "_Job", uri: str, given: dict[str, Any]) -> tuple[Path, str]:
        try:
            url = httpx.URL(uri)
        except (httpx.InvalidURL, ValueError) as error:
            raise FetchFailed(f"{told(uri)} is no address that can be read ({error})") from error
        target = self._fetcher.policy.judge(url, job.order.task.files_url)
        key = target.key
        started = time.monotonic()
        lock = self._fetching.setdefault(key, asyncio.Lock())
        async with lock, self._gate:  # who wants the same file waits for the first, and finds it kept
            path, entry, came = await self._get(job, target.url, key, given)
        _log.info(
            Event.INPUT_FETCHED,
            task_id=job.order.task.id,
            field=job.field,
            host=url.host,
            size=entry.size,
            cached=not came,
            duration_s=round(time.monotonic() - started, 3),
        )
        return path, entry.content_type

    async def _get(
        self, job: "_Job", url: httpx.URL, key: str, given: dict[str, Any]
    ) -> tuple[Path, Entry, bool]:
        """A file's path in the run's directory, its entry, and whether its bytes came over the network."""
        path = url.raw_path.partition(b"?")[0].decode("ascii")
        name = _text(given.get("filename")) or input_names.name_in_path(path)
        for known in (await asyncio.to_thread(self._cache.find, key), None):
            if known is None or not known.fresh(now_ms()):
                came = await self._ask(job, url, key, known, name)
                if came is not None:
                    return *came, True
            if known is None:
                break
            with contextlib.suppress(FileNotFoundError):  # evicted just now: once more, from the start
                return await self._copy(job, known, name), known, False
        raise FetchFailed(f"{shown(url)} answered 304 to a question without a condition")

    async def _ask(
        self, job: "_Job", url: httpx.URL, key: str, known: Entry | None, name: str
    ) -> tuple[Path, Entry] | None:
        """Fetch a file, into the cache where that is useful; None when `known` still holds."""
        part = self._cache.new_part(key)
        version = Version(etag=known.etag, modified=known.modified) if known else Version()
        try:
            fetched = await self._fetcher.fetch(url, part, known=version, on_progress=job.progress(url))
            if fetched is None:
                if known is not None:
                    renewed = msgspec.structs.replace(known, checked_ms=now_ms())
                    await asyncio.to_thread(self._cache.put, key, renewed)
                return None
            entry = Entry(
                data=part.name,
                size=fetched.size,
                content_type=fetched.content_type,
                etag=fetched.version.etag,
                modified=fetched.version.modified,
                checked_ms=now_ms(),
                fresh_s=fetched.fresh_s or 0,
            )
            useful = fetched.fresh_s is not None and (fetched.fresh_s > 0 or fetched.version.known)
            if useful and self._cache.takes(entry.size):
                path = await self._copy(job, entry, name)  # first: what is kept may go at any time
                return path, await unbroken(self._cache.keep, key, part, entry)
            path = job.place(name, entry.content_type)  # of no use to others: it is the run's alone
            await unbroken(shutil.move, part, path)
            return path, entry
        finally:
            part.unlink(missing_ok=True)

    async def _copy(self, job: "_Job", entry: Entry, name: str) -> Path:
        path = job.place(name, entry.content_type)
        stop = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(self._cache.copy, entry, path, stop))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            with contextlib.suppress(Stopped, OSError):
                await work
            raise
        return path


_PRIVATE: Final = re.compile(r"(?<=//)[^/@]*@|[?#][^']*")
_DO: Final = "give an http, https or data address (POST /files takes uploads)"


class _Job:
    """One file of one task."""

    def __init__(self, order: Assignment, pointer: str, folder: Path, on_line: OnLine) -> None:
        self.order = order
        self.field = f"input.{dotted(pointer)}" if pointer else "input"
        self._folder = folder
        self._on_line = on_line
        self._said_at = time.monotonic()

    def failed(self, reason: str) -> InputFileFailed:
        """The error of this field."""
        _log.info(Event.INPUT_REFUSED, task_id=self.order.task.id, field=self.field, reason=reason)
        return InputFileFailed(f"{self.field}: {reason}")

    def place(self, name: str, content_type: str) -> Path:
        """The path for the file, in a new directory of its own."""
        self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        return self._folder / input_names.safe_name(name, content_type)

    def progress(self, url: httpx.URL) -> OnProgress:
        """Says in the task's log now and then how far a large file is."""

        def on_progress(done: int, total: int | None) -> None:
            ends = done == total
            if max(done, total or 0) < LARGE_BYTES:
                return
            if not ends and time.monotonic() - self._said_at < PROGRESS_S:
                return
            self._said_at = time.monotonic()
            of = f" of {total / _MIB:.0f}" if total else ""
            self._on_line(LogType.TASK, f"{self.field}: {done / _MIB:.0f}{of} MiB from {url.host}")

        return on_progress


def _facts(uri: str, path: Path, given: dict[str, Any], content_type: str) -> dict[str, Any]:
    """What the SDK's File is built from; what the caller said of the file goes first, its size excepted."""
    kind = _text(given.get("content_type")) or content_type or mimetypes.guess_type(path.name)[0]
    name = input_names.plain_name(_text(given.get("filename")))
    if not name and uri[:5].lower() != "data:":
        name = input_names.plain_name(
            input_names.name_in_path(httpx.URL(uri).raw_path.partition(b"?")[0].decode())
        )
    facts = {"uri": uri, "path": str(path), "size": path.stat().st_size, "filename": name or path.name}
    return facts | ({"content_type": kind} if kind else {})


def _value(document: Any, pointer: str) -> Any:
    """A file value that is there: a text or a map that is not empty; else None."""
    try:
        value = get_at(document, pointer)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return value if isinstance(value, (str, dict)) else None


def _first(failures: BaseException) -> BaseException:
    """The first single error of a group."""
    while isinstance(failures, BaseExceptionGroup):
        failures = failures.exceptions[0]
    return failures


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def told(value: object) -> str:
    """A value of a caller as messages may have it; of what looks like an address no user, password or query."""
    text = _PRIVATE.sub("", repr(value))
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
