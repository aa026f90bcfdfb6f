"""What `stoker up` does and shows once its parts run: readiness, examples, a first task."""

import asyncio
import shlex
import time
from pathlib import Path
from typing import Any, Final

from rich.panel import Panel

from stoker.core.errors import StokerError
from stoker.settings import ClientSettings, UpSettings, load
from stoker_cli.api import Api, find_key
from stoker_cli.deploy import DeployOptions, deploy_folder, find_app_folders
from stoker_cli.inputs import parse_input
from stoker_cli.output import CommandFailed, ExitCode, items_of, out, print_event, print_table, safe
from stoker_cli.run import follow, submit
from stoker_cli.task_view import TaskView
from stoker_cli.up.supervisor import Supervisor
from stoker_cli.workers import worker_rows

READY_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.05


class Greeting:
    """What happens after the start, step by step.

    1. wait until a task can run  2. say where everything is  3. deploy the apps of the first tasks
    4. run these tasks  5. deploy the other examples.

    A step that fails is shown and does not end the system.
    """

    def __init__(
        self, settings: UpSettings, supervisor: Supervisor, first_tasks: list[str], *, json: bool
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._first_tasks = first_tasks
        self._json = json
        self._mono_started = time.monotonic()

    async def run(self) -> None:
        """Do all of it."""
        url = self._supervisor.url
        if not self._json:
            out.print(f"[bold]stoker[/] is starting at {url} ...")
        try:
            await self._until_ready(url)
        except StokerError as error:
            self._failed("start", error)
            return
        # STOKER_API_KEY and the settings file may name a key of another gateway: this one's own is wanted.
        own = {"data_dir": self._settings.data_dir, "url": url, "api_key": ""}
        settings = load(ClientSettings, own)
        try:
            key = find_key(settings)
        except StokerError as error:
            self._failed("introduction", error)
            return
        async with Api(url, key, settings.trust()) as api:
            try:
                await self._introduce(api)
            except StokerError as error:
                self._failed("introduction", error)
                return
            folders = self._examples()
            first = {app_name(text) for text in self._first_tasks}
            await self._deploy(api, [folder for folder in folders if folder.name in first])
            for text in self._first_tasks:
                await self._first_task(api, text)
            await self._deploy(api, [folder for folder in folders if folder.name not in first])
        if not self._json:
            out.print("\n[bold green]ready[/]; Ctrl-C ends it")

    def _examples(self) -> list[Path]:
        """The folders of the apps that are deployed at the start; a place without any is told."""
        if self._settings.examples is None:
            return []
        try:
            return find_app_folders(self._settings.examples)
        except StokerError as error:
            self._failed("deploy of STOKER_EXAMPLES", error)
            return []

    async def _until_ready(self, url: str) -> None:
        """Wait for `GET /ready`; the database answers already, however long it loaded.

        Raises:
            CommandFailed: not ready in time; says what the gateway answered last.
        """
        last = "nothing"
        deadline = time.monotonic() + READY_TIMEOUT_S
        async with Api(url, "", self._settings.trust()) as api:
            while time.monotonic() < deadline:
                try:
                    await api.get("/ready")
                except StokerError as error:
                    last = error.message
                else:
                    return
                await asyncio.sleep(POLL_S)
        raise CommandFailed(
            f"the system is not ready after {READY_TIMEOUT_S:.0f} s; the gateway says: {last}",
            ExitCode.FAILED,
            f"look into {self._settings.logs_dir}",
        )

    async def _introduce(self, api: Api) -> None:
        engines, workers = await asyncio.gather(api.get("/engines"), api.get("/workers"))
        took_s = time.monotonic() - self._mono_started
        if self._json:
            self._say_json(workers, took_s)
            return
        text = (
            f"API       [bold]{self._supervisor.url}[/]\n"
            f"docs      {self._supervisor.url}/docs\n"
            f"key       {safe(str(self._settings.key_file))}\n"
            f"data      {safe(str(self._settings.data_dir))}\n"
            f"logs      {safe(str(self._settings.logs_dir))}"
        )
        out.print(Panel(text, title=f"stoker, ready in {took_s:.1f} s", title_align="left", expand=False))
        print_table(
            "",
            ("worker", "state", "device", "memory", "use", "warm apps"),
            worker_rows(items_of(engines), items_of(workers)),
            empty="no workers",
        )

    def _say_json(self, workers: Any, took_s: float) -> None:
        print_event(
            "ready",
            url=self._supervisor.url,
            key_file=self._settings.key_file,
            data_dir=self._settings.data_dir,
            pids=self._supervisor.pids,
            workers=[worker.get("name") or worker.get("id") for worker in items_of(workers)],
            after_s=round(took_s, 3),
        )

    async def _deploy(self, api: Api, folders: list[Path]) -> None:
        options = DeployOptions(data_dir=self._settings.data_dir)
        for folder in folders:
            try:
                result = await deploy_folder(api, folder, self._line, options)
            except StokerError as error:
                self._failed(f"deploy of {folder.name}", error)
                continue
            if self._json:
                print_event("deployed", **result.as_json())
            else:
                word = "deployed" if result.changed else "unchanged"
                out.print(f"app [bold]{safe(result.ref)}[/] [green]{word}[/]")

    async def _first_task(self, api: Api, text: str) -> None:
        """Run one task as `stoker run` would: 'namespace/name field=value file=@path'."""
        try:
            ref, *pieces = _words(text) or [""]
            if not self._json:
                command = " ".join(f"-i {shlex.quote(piece)}" for piece in pieces)
                out.print(f"\n[bold]first task:[/] stoker run {safe(ref)} {safe(command)}")
            body = {"app": ref, "infra": "private"}
            task = await submit(api, body, parse_input(pieces), parse_input([]))
            view = None if self._json else TaskView(out)
            task = await follow(api, str(task["id"]), view)
        except StokerError as error:
            self._failed("first task", error)
            return
        if self._json:
            print_event("task", task=task)

    def _line(self, text: str) -> None:
        if not self._json:
            out.print(f"  [dim]{safe(text.rstrip())}[/]")

    def _failed(self, what: str, error: StokerError) -> None:
        if self._json:
            print_event("failed", what=what, message=error.message)
        else:
            hint = getattr(error, "hint", "")
            out.print(f"[bold red]{safe(what)} failed:[/] {safe(error.message)} [dim]{safe(hint)}[/]")


def app_name(first_task: str) -> str:
    """The name of a first task's app, without namespace and version: what its example folder is called."""
    ref, *_ = [*_words(first_task), ""]
    return ref.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _words(first_task: str) -> list[str]:
    """As a shell has them; where quotes do not match, by the blanks."""
    try:
        return shlex.split(first_task)
    except ValueError:
        return first_task.split()
