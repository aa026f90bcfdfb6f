"""What pins ask of the leader: read what is wanted, carry a plan out, write what was found, unload what shall go."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

import msgspec

from stoker.core.errors import NotFound, ProtocolRefusal
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.core.loads import PREFIX
from stoker.core.messages import EvictOrder, LoadOrder, PinOrder, SetupKey, TaskId, WorkerId
from stoker.core.pins import LoadGrant, PinStatus
from stoker.log import Logger
from stoker.protocol import Store
from stoker_scheduler.actions import Evict
from stoker_scheduler.eviction import Facts
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.pin_book import Order
from stoker_scheduler.pins import Load, Plan, decide_pins, to_tell
from stoker_scheduler.residents import Phase

UNLOAD_REASON: Final = "somebody asked for it"
LONG_LOOK_S: Final = 0.002
REST_FACTOR: Final = 10.0
"""After a look that took long, the next one waits ten times as long: tasks come before a few hundred pins."""


class PinChores:
    """The work of one leadership on its mirror's pins."""

    def __init__(
        self, store: Store, mirror: Mirror, epoch: int, log: Logger, clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._book = mirror.pins
        self._epoch = epoch
        self._log = log
        self._clock = clock
        self._mono_rested = 0.0

    async def run(self) -> None:
        """Do what cannot wait for the clock. Costs nothing where nothing is pinned, and nothing has changed."""
        book = self._book
        if book.stale:
            await self._read()
        wanted = book.touched or (book.lacking and self._mirror.changed.workers)
        if wanted and time.perf_counter() >= self._mono_rested:
            await self._look()
        if book.unloads:  # after the look: what was unpinned a moment ago may go
            await self._unload()

    async def tick(self) -> None:
        """The clock's part: orders that came to nothing, pauses that are over."""
        now_ms, book = self._clock(), self._book
        for order in book.lost(self._mirror.fleet, now_ms):
            self._mirror.changed.workers[order.worker_id] = None
        book.touched = book.touched or bool(book.pins or book.pinned or book.kept)
        await self.run()

    async def _read(self) -> None:
        book, pins = self._book, self._store.pins
        book.stale = False
        book.pins = {pin.id: pin for pin in await pins.list()}
        book.states = await pins.states()
        book.keep_alives = await pins.keep_alives()
        book.forget_gone()
        book.touched = True

    async def _look(self) -> None:
        book, mirror = self._book, self._mirror
        book.touched = False
        facts = Facts(self._clock(), mirror.queues, mirror.fleet, mirror.knowledge, mirror.rules)
        mono = time.perf_counter()
        plan = decide_pins(book, facts)
        took_s = time.perf_counter() - mono
        self._mono_rested = mono + (REST_FACTOR * took_s if took_s > LONG_LOOK_S else 0.0)
        for worker_id in book.mark(plan.pinned, mirror.fleet):
            mirror.changed.workers[worker_id] = None  # what waits for it may have to look again
        for worker in to_tell(plan, book, facts):
            keys = book.pinned.get(worker.id, frozenset())
            await self._store.pins.send(
                worker.engine.id, PinOrder(worker_id=worker.id, setup_keys=tuple(sorted(keys)))
            )
            book.told[worker.id] = (keys, facts.now_ms)
        for load in plan.loads:
            await self._load(load, facts.now_ms)
        await self._write(plan)
        book.lacking = any(
            len(status.workers) + len(status.loading) < status.wanted for status in plan.states.values()
        )

    async def _load(self, load: Load, now_ms: int) -> None:
        mirror, pin, worker = self._mirror, load.pin, load.worker
        load_id = TaskId(new_id(PREFIX))
        task = msgspec.structs.replace(pin.request, id=load_id)
        order = LoadOrder(task=task, token="", worker_id=worker.id, evict=load.evict)
        grant = LoadGrant(
            engine_id=worker.engine.id,
            app_id=task.app_id,
            app=task.app,
            version_id=task.version_id,
            setup_key=task.setup_key,
            owner=pin.owner,
        )
        try:
            await self._store.pins.load(self._epoch, order, grant)
        except ProtocolRefusal as refusal:
            if refusal.refusal != "ENGINE_GONE":
                raise
            mirror.fleet.suspect(worker.engine.id)
            return
        sent = Order(load_id, worker.engine.id, worker.id, task.setup_key, task.app, now_ms)
        needs = pin.needs
        vram_bytes = (
            mirror.knowledge.vram_bytes(task.setup_key, needs.vram_bytes, worker.device)
            if worker.kind.gpus
            else 0
        )
        self._book.begin(sent, mirror.fleet, load.load_s, load.evict, vram_bytes)
        worker.residents[task.setup_key].pinned = not pin.once
        if pin.once:  # somebody asks for it as a task would, and it is worth as much to keep
            mirror.knowledge.note_submitted(task.setup_key, now_ms, pin.id)
        self._log.info(
            Event.LOAD_ORDERED,
            load_id=load_id,
            worker=worker.id,
            app=task.app,
            setup_key=task.setup_key,
            reason="wanted once" if pin.once else "pinned",
            evicts=len(load.evict),
        )

    async def _write(self, plan: Plan) -> None:
        """Store what has changed, and forget what is over."""
        book, pins = self._book, self._store.pins
        for pin_id in plan.over:
            with contextlib.suppress(NotFound):  # somebody else was quicker
                await pins.remove(pin_id)
            del book.pins[pin_id]
        changed: dict[str, PinStatus] = {
            pin_id: status for pin_id, status in plan.states.items() if book.states.get(pin_id) != status
        }
        gone = [pin_id for pin_id in book.states if pin_id not in plan.states]
        if changed or gone:
            await pins.set_states(changed, gone)
        book.states = plan.states

    async def _unload(self) -> None:
        """Unload what somebody wants to go, where it is idle and not pinned."""
        unloads, self._book.unloads = self._book.unloads, {}
        for worker_id, key in unloads:
            if self._may_go(worker_id, key):
                await self._evict(worker_id, key)

    def _may_go(self, worker_id: WorkerId, key: SetupKey) -> bool:
        worker = self._mirror.fleet.workers.get(worker_id)
        if worker is not None and key in worker.parked:
            return True
        resident = worker.residents.get(key) if worker is not None else None
        if worker is None or resident is None or resident.pinned or worker.lease == key:
            return False
        return resident.phase is Phase.READY and all(held.setup_key != key for held in worker.held)

    async def _evict(self, worker_id: WorkerId, key: SetupKey) -> None:
        worker = self._mirror.fleet.workers[worker_id]
        order = EvictOrder(worker_id=worker_id, setup_key=key, reason=UNLOAD_REASON)
        await self._store.scheduling.send(worker.engine.id, order)
        gone = Evict(engine_id=worker.engine.id, worker_id=worker_id, setup_key=key, reason=UNLOAD_REASON)
        self._mirror.apply_evict(gone, self._clock())
        self._log.info(Event.INSTANCE_EVICTED, worker=worker_id, setup_key=key, reason=UNLOAD_REASON)
