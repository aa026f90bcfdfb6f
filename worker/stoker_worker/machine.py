"""This machine as the executions use it: code, environments, processes, files.

The production `AppMachine`. Failures come out as errors whose message a user can read.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from stoker import manifest
from stoker.core.errors import StokerError
from stoker.core.events import Event
from stoker.core.messages import Assignment, LogType, TaskRequest, WorkerInfo
from stoker.log import get_logger
from stoker.redaction import Redactor, secret_looking
from stoker.settings import WorkerSettings
from stoker.slot_settings import WorkerSlots
from stoker_worker.budget import Budget
from stoker_worker.environment import Environment, Environments
from stoker_worker.files import Gateway, GatewayRefused
from stoker_worker.inputs import Inputs
from stoker_worker.instance import Instance, RunResult, RunSpec
from stoker_worker.instance_spec import InstanceSpec
from stoker_worker.logs import OnLine
from stoker_worker.outcomes import PreparationFailed, PreparationHindered
from stoker_worker.outputs import Outputs
from stoker_worker.pointers import put_at
from stoker_worker.ports import Prepared, RunningInstance
from stoker_worker.private_tmp import PrivateTmp, names_tmp, paths_to_keep
from stoker_worker.procs import sweep_short_paths
from stoker_worker.shelf import Use
from stoker_worker.versions import Versions

STOP_GRACE_S: Final = 5.0
"""What an app has for `unload` and after SIGTERM, each, before SIGKILL."""
VARIANT: Final = "default"
"""Older apps read `metadata.app_variant` and must find it."""

_log = get_logger("machine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator of this machine decided for the processes of apps."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    slots: WorkerSlots = field(default_factory=WorkerSlots)
    cache_bytes: int = 10 * 1024**3

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        return cls(
            env={name: value.get_secret_value() for name, value in settings.app_env.items()},
            slots=settings.workers,
            cache_bytes=settings.app_cache_max_bytes,
        )

    def env_of(self, worker: WorkerInfo) -> dict[str, str]:
        """The variables for apps of a worker; its own are stronger than those of all, an app's than both."""
        return dict(self.env) | self.slots.env_of(gpus=tuple(gpu.index for gpu in worker.gpus))


class Machine:
    """One engine's hands."""

    def __init__(
        self,
        versions: Versions,
        environments: Environments,
        gateway: Gateway,
        work: Path,
        inputs: Inputs,
        private_tmp: PrivateTmp | None = None,
        keep: tuple[Path, ...] = (),
        cache_max_bytes: int | None = None,
    ) -> None:
        """`keep`: folders of the daemon that apps must see, wherever they lie."""
        self.rules = Rules()
        self._inputs = inputs
        self._private_tmp = private_tmp or PrivateTmp("nobody asked for it")
        self._keep = (*keep, *paths_to_keep(dict(os.environ)))
        self._sharing: set[RunningInstance] = set()
        self._versions = versions
        self._environments = environments
        self._budget = Budget((environments.shelf, versions.shelf), cache_max_bytes)
        self._gateway = gateway
        self._work = work
        self._starts = 0
        self._cleaning: set[asyncio.Task[None]] = set()

    def clean(self) -> None:
        """Remove what an earlier life of this daemon left."""
        for shelf in (self._versions.shelf, self._environments.shelf):
            if swept := shelf.sweep():
                _log.info(Event.CACHE_SWEPT, kind=shelf.path.name, keys=swept)
        self._budget.make_room()
        _remove(self._work)
        sweep_short_paths()

    def environment_keys(self) -> tuple[str, ...]:
        """Environments that are on disk."""
        return self._environments.keys()

    def prepared(self, request: TaskRequest) -> Prepared | None:
        """See `AppMachine.prepared`."""
        code = self._versions.find(request.version_id)
        if code is None:
            return None
        environment = None
        try:
            app = manifest.load(code.folder)
            environment = self._environments.find(code.folder, app)
        except StokerError:
            return None  # `prepare` meets it again, and says so in the task
        finally:
            if environment is None:
                code.close()
        return None if environment is None else _prepared(code, app, environment)

    async def prepare(self, order: Assignment, on_line: OnLine) -> Prepared:
        """See `AppMachine.prepare`."""
        name = order.task.app
        try:
            await asyncio.to_thread(self._budget.make_room)
            code = await self._versions.ensure(
                order.task.version_id, lambda target: self._gateway.fetch_bundle(order, target), on_line
            )
            try:
                app = manifest.load(code.folder)
                environment = await self._environments.ensure(code.folder, app, on_line)
            except BaseException:
                code.close()
                raise
            prepared = _prepared(code, app, environment)
            try:
                await asyncio.to_thread(self._budget.make_room)
            except BaseException:
                prepared.release()
                raise
        except GatewayRefused as error:
            kind = PreparationHindered if error.passing else PreparationFailed
            raise kind(f"The code of {name} could not be fetched. {error.message}") from error
        except OSError as error:  # a full disk, or no uv
            raise PreparationHindered(f"{name} could not be prepared on this machine: {error}") from error
        return prepared

    async def start(
        self, order: Assignment, prepared: Prepared, worker: WorkerInfo, on_line: OnLine
    ) -> Instance:
        """See `AppMachine.start`."""
        task = order.task
        secrets = await self._secrets(order) if task.has_secrets else {}
        operators = self.rules.env_of(worker)
        inherited = secret_looking(operators)
        self._starts += 1
        work_dir = self._work / worker.id / f"{task.setup_key}.{self._starts}"
        spec = InstanceSpec(
            python=prepared.python,
            app_dir=prepared.app_dir,
            work_dir=work_dir,
            setup=task.setup,
            env=operators | prepared.env,
            secrets=secrets,
            redactor=Redactor(secrets | {k: v for k, v in inherited.items() if k not in secrets}),
            gpus=tuple(gpu.uuid for gpu in worker.gpus),
            metadata=_metadata(task, worker.id, tuple(str(gpu.index) for gpu in worker.gpus)),
            stop_grace_s=STOP_GRACE_S,
            own_tmp=self._private_tmp.private,
            keep=self._keep,
            node_env=prepared.node_env,
            cache_bytes=self.rules.cache_bytes,
        )
        for note in prepared.notes:
            on_line(LogType.SERVE, note)
        private = self._private_tmp.private
        names = not private and await asyncio.to_thread(names_tmp, prepared.app_dir)
        uses = [use.share() for use in prepared.uses]
        try:
            instance = await Instance.start(spec, on_line)
        except BaseException:
            _remove(work_dir)
            _close(uses)
            raise
        if instance.shared_because and (names or private):  # refused now, although it was possible before
            self._let_share(instance, on_line)
        cleaning = asyncio.ensure_future(self._clean_up(instance, work_dir, uses))
        self._cleaning.add(cleaning)
        cleaning.add_done_callback(self._cleaning.discard)
        return instance

    def turn(
        self, instance: RunningInstance, on_wait: Callable[[], None]
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """See `AppMachine.turn`."""
        return self._private_tmp.turn(shares=instance in self._sharing, on_wait=on_wait)

    def _let_share(self, instance: Instance, on_line: OnLine) -> None:
        """Have an app that names files below the common /tmp take turns with others that do."""
        self._sharing.add(instance)
        on_line(
            LogType.SERVE,
            f"This machine gives apps no /tmp of their own ({instance.shared_because}), and the code of this app "
            "names files there: it runs when no other such app does.",
        )

    async def _secrets(self, order: Assignment) -> dict[str, str]:
        try:
            return await self._gateway.fetch_secrets(order)
        except GatewayRefused as error:
            kind = PreparationHindered if error.passing else PreparationFailed
            raise kind(
                f"The secrets of {order.task.app} could not be fetched. {error.said or error.message}"
            ) from error

    async def fetch(self, order: Assignment, on_line: OnLine) -> Any:
        """See `AppMachine.fetch`."""
        return await self._inputs.fetch(order, on_line)

    async def discard(self, order: Assignment) -> None:
        """See `AppMachine.discard`."""
        await self._inputs.discard(order)

    def run_spec(self, order: Assignment, given: Any) -> RunSpec:
        """See `AppMachine.run_spec`."""
        task = order.task
        return RunSpec(
            task_id=task.id,
            function=task.function,
            input=given,
            metadata=_metadata(task, order.worker_id, ()),
        )

    async def _clean_up(self, instance: Instance, folder: Path, uses: Iterable[Use]) -> None:
        """Remove what a process left in its directory: nobody else does. Its code and environment are free."""
        await instance.exited.wait()
        self._sharing.discard(instance)
        _close(uses)
        await asyncio.to_thread(_remove, folder)

    async def upload(self, order: Assignment, result: RunResult, on_line: OnLine) -> object:
        """See `AppMachine.upload`."""
        stored = await Outputs(self._gateway).store(order, result.files, on_line)
        output = result.output
        for file, value in zip(result.files, stored, strict=True):
            output = put_at(output, file.pointer, value)
        return output


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _close(uses: Iterable[Use]) -> None:
    for use in uses:
        use.close()


def _prepared(code: Use, app: manifest.Manifest, environment: Environment) -> Prepared:
    return Prepared(
        app_dir=code.folder,
        python=environment.python,
        node_env=environment.node_env,
        notes=environment.notes,
        env=dict(app.env),
        vram_bytes=app.needs.vram_bytes,
        uses=(code, environment.use),
    )


def _metadata(task: TaskRequest, worker_id: str, gpu_ids: tuple[str, ...]) -> dict[str, Any]:
    return {
        "app_id": task.app_id,
        "app_version_id": task.version_id,
        "app_variant": task.variant or VARIANT,
        "worker_id": worker_id,
        "gpu_ids": list(gpu_ids),
        "task_id": task.id,
    }
