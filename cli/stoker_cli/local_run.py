"""One run of an app's folder on this machine, without a server: the worker's own environment and runner code.

preparing (environment) > serving (import) > setting_up > running > completed or failed
"""

import asyncio
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker.core.requirements import wanted
from stoker.core.states import TaskState
from stoker.manifest import DEFAULT_FUNCTION, Manifest
from stoker.settings import WorkerSettings, load
from stoker_cli.checks import check_folder
from stoker_cli.deploy import FolderRefused, find_uv
from stoker_cli.output import CommandFailed, ExitCode
from stoker_worker.environment import Environment, Environments, Policy
from stoker_worker.instance import Instance, RunResult, RunSpec
from stoker_worker.instance_spec import InstanceSpec
from stoker_worker.outcomes import LoadTimeout
from stoker_worker.pointers import put_at

STOP_GRACE_S: Final = 5.0
IMPORT_TIMEOUT_S: Final = 600.0
METADATA: Final = {"app_variant": "default", "task_id": "local", "worker_id": "local", "gpu_ids": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """What to run. `save`: where the files of the output go; None = a new folder, made for the first of them."""

    folder: Path
    input: dict[str, Any]
    setup: dict[str, Any]
    function: str
    env: dict[str, str]
    save: Path | None
    on_state: Callable[[TaskState], None]
    on_line: Callable[[LogType, str], None]


@dataclass(slots=True, kw_only=True)
class Ended:
    """How it went."""

    state: TaskState
    output: Any = None
    error: str = ""
    error_code: str = ""
    files: list[str] = field(default_factory=list)
    took_s: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "state": self.state.name.lower(),
            "output": self.output,
            "error": self.error,
            "error_code": self.error_code,
            "files": self.files,
            "took_s": {name: round(seconds, 3) for name, seconds in self.took_s.items()},
        }


async def run_locally(run: LocalRun) -> Ended:
    """Run one function of an app's folder; what goes wrong inside of the app is part of the answer.

    Raises:
        FolderRefused: the folder cannot be deployed either.
        CommandFailed: the app has no such function.
    """
    report = await asyncio.to_thread(check_folder, run.folder)
    if report.errors or report.app is None:
        raise FolderRefused(report)
    ended = Ended(state=TaskState.FAILED)
    work = Path(tempfile.mkdtemp(prefix="stoker-test-"))
    try:
        ended.output = await _steps(run, report.app, work, ended)
        ended.state = TaskState.COMPLETED
    except CommandFailed:
        raise
    except StokerError as error:
        ended.error, ended.error_code = error.message, error.code
    finally:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    return ended


async def _steps(run: LocalRun, app: Manifest, work: Path, ended: Ended) -> Any:
    settings = load(WorkerSettings)
    clock = _Clock(run.on_state, ended.took_s)
    clock.enter(TaskState.PREPARING)
    folder = await asyncio.to_thread(run.folder.absolute)
    environments = Environments(settings.cache_path, find_uv(), Policy.of(settings))
    environment = await environments.ensure(folder, app, run.on_line)
    try:
        return await _in_environment(run, app, environment, work, ended, clock)
    finally:
        environment.close()


async def _in_environment(
    run: LocalRun, app: Manifest, environment: Environment, work: Path, ended: Ended, clock: "_Clock"
) -> Any:
    settings = load(WorkerSettings)
    folder = await asyncio.to_thread(run.folder.absolute)
    for note in environment.notes:
        run.on_line(LogType.BUILD, note)
    clock.enter(TaskState.SERVING)
    spec = InstanceSpec(
        python=environment.python,
        app_dir=folder,
        work_dir=work / "instance",
        setup=run.setup,
        env=app.env | _secrets(app) | run.env,
        metadata=METADATA,
        stop_grace_s=STOP_GRACE_S,
        node_env=environment.node_env,
    )
    async with _in_time():
        instance = await Instance.start(spec, run.on_line)
    try:
        async with _in_time():
            functions, _ = await instance.describe()
        name = _choose(functions, run.function or app.default_function, named=bool(run.function))
        check_input(functions[name]["input_schema"], run.input)
        clock.enter(TaskState.SETTING_UP)
        await instance.setup(settings.setup_timeout_s)
        clock.enter(TaskState.RUNNING)
        order = RunSpec(task_id="local", function=name, input=run.input, metadata=METADATA)
        result = await instance.run(order, lambda _partial: None, settings.run_timeout_s)
        output = await asyncio.to_thread(_keep_files, result, run, ended.files)
    finally:
        clock.stop()
        await instance.stop("the test is over")
    return output


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bounds a step of the import.

    Raises:
        LoadTimeout: it took longer.
    """
    try:
        async with asyncio.timeout(IMPORT_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise LoadTimeout(f"The app was not imported within {IMPORT_TIMEOUT_S:g} s.") from error


class _Clock:
    """Tells states and measures them."""

    def __init__(self, on_state: Callable[[TaskState], None], took_s: dict[str, float]) -> None:
        self._on_state = on_state
        self._took_s = took_s
        self._state: TaskState | None = None
        self._since = 0.0

    def enter(self, state: TaskState) -> None:
        self.stop()
        self._state, self._since = state, time.monotonic()
        self._on_state(state)

    def stop(self) -> None:
        if self._state is not None:
            self._took_s[self._state.name.lower()] = time.monotonic() - self._since
        self._state = None


def check_input(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """Whether an input fits, as the gateway would see it.

    Raises:
        CommandFailed: names the fields that do not.
    """
    try:
        validator = jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return  # the app's own model checks
    problems = [
        f"{'.'.join(str(part) for part in error.instance_path) or 'input'}: {error.message}"
        for error in validator.iter_errors(value)
    ]
    if problems:
        raise CommandFailed(f"the input does not fit: {'; '.join(problems)}", ExitCode.USAGE)


def _choose(functions: dict[str, Any], wanted: str, *, named: bool) -> str:
    if wanted in functions:
        return wanted
    if not named and wanted == DEFAULT_FUNCTION and len(functions) == 1:
        return next(iter(functions))
    raise CommandFailed(
        f"{wanted!r} is no function of the app; it has {', '.join(sorted(functions)) or 'none'}",
        ExitCode.USAGE,
    )


def _secrets(app: Manifest) -> dict[str, str]:
    """Declared secrets that this shell has as variables."""
    names = [need.key for need in wanted(app.secrets, app.integrations)]
    return {name: os.environ[name] for name in names if name in os.environ}


def _keep_files(result: RunResult, run: LocalRun, kept: list[str]) -> Any:
    """Copy the output's files out of the directory that goes; the output names the copies."""
    output, save = result.output, run.save
    for number, file in enumerate(result.files):
        if save is None:  # of a name that nobody can foresee: others may write to the same directory
            save = Path(tempfile.mkdtemp(prefix=f"stoker-output-{run.folder.absolute().name}-"))
        save.mkdir(parents=True, exist_ok=True)
        target = str(_copy(Path(file.path), save, Path(file.filename or f"file{number}").name))
        kept.append(target)
        output = put_at(output, file.pointer, target)
    return output


def _copy(source: Path, folder: Path, name: str) -> Path:
    """Copy a file under its name, or the first free one made from it. Overwrites nothing and follows no link."""
    for number in itertools.count():
        target = folder / (f"{number}-{name}" if number else name)
        try:
            copy = target.open("xb")
        except FileExistsError:
            continue
        with copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy)
        break
    return target
