"""The HTTP client of the command line. Speaks the public API only, under the newest dialect.

Finds the gateway by STOKER_URL and STOKER_API_KEY, else by what `stoker up` left in the data directory.
"""

import asyncio
import contextlib
import mimetypes
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from stoker import __version__
from stoker.settings import ClientSettings, load
from stoker_cli.answers import ApiError, Explained, gateway_address, no_gateway, raise_for
from stoker_cli.output import CommandFailed, ExitCode, items_of

TIMEOUT_S: Final = 30.0
STREAM_SILENCE_S: Final = 60.0
"""The gateway sends something at least every 20 s; after this long the connection is dead."""
PAGE: Final = 100
"""Entries of a list that are asked for at a time."""
RECONNECTS: Final = 5
"""So often in a row a stream is asked for again without an event between."""
RECONNECT_DELAY_S: Final = 1.0
AWAY: Final = frozenset({502, 503, 504})
"""What a proxy answers while the gateway starts again, and the gateway while its store does."""
STATES: Final = (
    "unknown",
    "received",
    "queued",
    "scheduled",
    "preparing",
    "serving",
    "setting_up",
    "running",
    "cancelling",
    "uploading",
    "completed",
    "failed",
    "cancelled",
)
"""Names of the status numbers of X-API-Version 2."""
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
Task = dict[str, Any]


class Api:
    """An open connection to a gateway. Use it as an async context manager."""

    def __init__(self, url: str, key: str, verify: ssl.SSLContext | bool = True) -> None:
        """Connect to nothing yet.

        Raises:
            CommandFailed: `url` is no address.
        """
        self.url = url
        authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(
            base_url=gateway_address(url),
            timeout=TIMEOUT_S,
            headers={
                **authorization,
                "X-API-Version": "2",
                "User-Agent": f"stoker-cli/{__version__}",
                "Accept": "application/json",
            },
            verify=verify,
            trust_env=False,  # the gateway is on this machine or named by its full address
        )

    @classmethod
    def from_settings(cls, settings: ClientSettings | None = None) -> Self:
        """The gateway and key of the environment, the settings file or the data directory.

        Raises:
            CommandFailed: nothing says where the gateway is, or there is no key.
        """
        settings = settings or load(ClientSettings)
        return cls(find_url(settings), find_key(settings), settings.trust())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back. May be called twice."""
        await self._http.aclose()

    async def get(self, path: str, **params: Any) -> Any:
        """GET; the decoded answer."""
        return await self.call("GET", path, params=params)

    async def post(self, path: str, body: object = None) -> Any:
        """POST a JSON body; the decoded answer."""
        return await self.call("POST", path, json=body)

    async def delete(self, path: str) -> Any:
        """DELETE; the decoded answer, None for an empty one."""
        return await self.call("DELETE", path)

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """One request.

        Raises:
            ApiError: the gateway refused it; carries the gateway's sentence.
            CommandFailed: no gateway answers, or what answers is none.
        """
        with self._explained():
            answer = await self._http.request(method, path, **options)
            raise_for(answer, self.url)
            return msgspec.json.decode(answer.content) if answer.content else None

    async def entries(
        self, method: str, path: str, query: Mapping[str, Any], *, limit: int | None = None, cursor: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The entries of a list, page by page: all, or the first `limit`; with `cursor`, those after it.

        Raises:
            ApiError: the gateway refused it.
            CommandFailed: no gateway answers.
        """
        place = "params" if method == "GET" else "json"
        left = limit
        while left is None or left > 0:
            asked = {**query, "limit": PAGE if left is None else min(PAGE, left), "cursor": cursor}
            answer = await self.call(method, path, **{place: asked})
            found = items_of(answer)
            for entry in found:
                yield entry
            left = None if left is None else left - len(found)
            following = str(answer.get("next_cursor") or "")
            if not following or following == cursor:
                return
            cursor = following

    async def upload(self, path: Path, *, category: str = "") -> dict[str, Any]:
        """Store a local file; the gateway's record of it, with `id` and `uri`.

        Raises:
            CommandFailed: the file cannot be read.
            ApiError: the gateway refused it.
        """
        try:
            source = await asyncio.to_thread(path.open, "rb")
            size = os.fstat(source.fileno()).st_size
        except OSError as error:
            raise CommandFailed(f"cannot read '{path}': {error.strerror}", ExitCode.USAGE) from error
        with source:
            content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            entry = {"filename": path.name, "content_type": content_type, "size": size, "uri": ""}
            if category:
                entry["category"] = category
            [record] = await self.post("/files", {"files": [entry]})

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(source.read, 1 << 20):
                    yield chunk

            headers = {"Content-Type": content_type, "Content-Length": str(size)}
            with self._explained():
                answer = await self._http.put(
                    record["upload_url"], content=chunks(), headers=headers, timeout=None
                )
            raise_for(answer, self.url)
        stored: dict[str, Any] = record
        return stored

    async def download(self, path: str, target: Path) -> None:
        """Store an answer's bytes in a new file.

        Raises:
            ApiError: the gateway refused it.
        """
        with self._explained():
            async with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    await answer.aread()
                raise_for(answer, self.url)
                with target.open("xb") as out:
                    async for chunk in answer.aiter_bytes():
                        await asyncio.to_thread(out.write, chunk)

    async def watch(self, task_id: str) -> AsyncIterator[Task]:
        """The task each time it changes, from now to its end; a lost connection is taken up again.

        Raises:
            CommandFailed: the gateway went away for good.
        """
        async with contextlib.aclosing(self.following(f"/tasks/{task_id}/stream")) as events:
            async for task in events:
                if "id" in task and "status" in task:
                    yield task
                    if state_of(task) in ENDED:
                        return
        try:
            task = await self.get(f"/tasks/{task_id}")
        except ApiError as error:
            if error.status not in AWAY:
                raise
            task = {}
        if state_of(task) not in ENDED:
            raise CommandFailed(
                f"the stream of task {task_id} broke off; the task goes on",
                ExitCode.UNREACHABLE,
                f"look at it with: stoker tasks get {task_id}",
            )
        yield task

    async def watch_run(self, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """A flow run each time it changes, from now to its end; a lost connection is taken up again.

        Raises:
            CommandFailed: the gateway went away for good.
        """
        async with contextlib.aclosing(self.following(f"/flowruns/{run_id}/stream")) as events:
            async for event in events:
                if "status_text" in event:
                    yield event
                    if event["status_text"] in ENDED:
                        return
        raise CommandFailed(
            f"the stream of flow run {run_id} broke off; the run goes on",
            ExitCode.UNREACHABLE,
            "look at it with: stoker flows runs",
        )

    async def log_pages(self, task_id: str, *, attempt: int = 0) -> AsyncIterator[Task]:
        """The pages of a task's log as they are answered."""
        params: dict[str, Any] = {"attempt": attempt}
        while True:
            answer = await self.get(f"/tasks/{task_id}/logs", **params)
            yield answer
            if not (cursor := answer.get("next_cursor")):
                return
            params["cursor"] = cursor

    async def log_lines(self, task_id: str, *, attempt: int = 0) -> AsyncIterator[Task]:
        """The entries of a task's log, and those that come until the task has ended.

        Raises:
            CommandFailed: the gateway went away for good.
        """
        params: dict[str, Any] = {"attempt": attempt, "follow": 1}
        async with contextlib.aclosing(self.following(f"/tasks/{task_id}/logs", params)) as events:
            async for event in events:
                if event.get("type") == "end":
                    return
                if "content" in event:
                    params["cursor"] = str(event["id"]).removeprefix(f"{task_id}-")
                    yield event
        raise CommandFailed(f"the log of task {task_id} broke off; the task goes on", ExitCode.UNREACHABLE)

    async def following(
        self, path: str, params: dict[str, Any] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of an NDJSON stream; a lost connection is taken up again, with `params` as they are then.

        Ends when the gateway stays away; whoever needs more than came says so.

        Raises:
            ApiError: the gateway refused it.
        """
        left = RECONNECTS
        while True:
            try:
                async with contextlib.aclosing(self.events(path, **(params or {}))) as events:
                    async for event in events:
                        left = RECONNECTS
                        yield event
            except httpx.TransportError:
                pass
            except ApiError as error:
                if error.status not in AWAY:
                    raise
            if not left:
                return
            left -= 1
            await asyncio.sleep(RECONNECT_DELAY_S)

    async def events(self, path: str, **params: Any) -> AsyncGenerator[dict[str, Any], None]:
        """The objects of an NDJSON stream.

        Raises:
            ApiError: the gateway refused it.
            CommandFailed: what answers is no gateway, or the path is none that can be sent.
            httpx.TransportError: the connection was lost.
        """
        headers = {"Accept": "application/x-ndjson"}
        timeout = httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S)
        with self._explained():
            request = self._http.build_request("GET", path, headers=headers, timeout=timeout, params=params)
        async with contextlib.aclosing(await self._http.send(request, stream=True)) as answer:
            if not answer.is_success:
                await answer.aread()
                raise_for(answer, self.url)
            async for line in answer.aiter_lines():
                try:
                    event = msgspec.json.decode(line) if line.strip() else None
                except msgspec.DecodeError as error:
                    raise no_gateway(self.url) from error
                if isinstance(event, dict):
                    yield event

    def _explained(self) -> Explained:
        return Explained(self.url)


@asynccontextmanager
async def connected() -> AsyncIterator[Api]:
    """The gateway that the settings name."""
    async with Api.from_settings() as api:
        yield api


async def ask(method: str, path: str, **options: Any) -> Any:
    """One request to the gateway that the settings name.

    Raises:
        ApiError: the gateway refused it.
        CommandFailed: nothing says where the gateway is, there is no key, or no gateway answers.
    """
    async with connected() as api:
        return await api.call(method, path, **options)


def find_url(settings: ClientSettings) -> str:
    """The gateway's address: STOKER_URL, else the running one of the data directory.

    Raises:
        CommandFailed: neither is there.
    """
    if settings.url:
        return settings.url.rstrip("/")
    try:
        return settings.url_file.read_text().strip().rstrip("/")
    except OSError as error:
        raise CommandFailed(
            f"no gateway runs on the data directory '{settings.data_dir}'",
            ExitCode.UNREACHABLE,
            "start one with `stoker up`, or set STOKER_URL (and STOKER_API_KEY), or STOKER_DATA_DIR",
        ) from error


def find_key(settings: ClientSettings) -> str:
    """The API key: STOKER_API_KEY, else the first key of the data directory.

    Raises:
        CommandFailed: neither is there.
    """
    if key := settings.api_key.strip():  # a secret that was made by `echo` ends with a line
        if not (key.isascii() and key.isprintable()):
            raise CommandFailed("STOKER_API_KEY holds characters that no key has", ExitCode.DENIED)
        return key
    try:
        return settings.key_file.read_text().strip()
    except OSError as error:
        raise CommandFailed(
            f"no API key: '{settings.key_file}' cannot be read ({error.strerror})",
            ExitCode.DENIED,
            "set STOKER_API_KEY to a key of the gateway; if all are lost: `stoker keys recover`, on its machine",
        ) from error


def state_of(task: Task) -> str:
    """The name of the task's state."""
    return state_name(task.get("status"))


def state_name(status: object) -> str:
    """The name of a status number, or of a name."""
    if isinstance(status, int) and 0 <= status < len(STATES):
        return STATES[status]
    return str(status).lower()
