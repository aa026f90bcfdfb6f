"""Hard constraints: which workers could ever run a group of tasks, and what is missing when none could."""

from collections.abc import Iterable, Iterator
from itertools import islice

from stoker.core.messages import GpuType, Needs
from stoker_scheduler.actions import Reason, Why
from stoker_scheduler.fleet import Fleet, Worker
from stoker_scheduler.kinds import Kind
from stoker_scheduler.queues import Shape

GB = 1_000_000_000
"""Sizes are shown in decimal gigabytes, as apps declare them."""
NAMES_SHOWN = 8


def fits(needs: Needs, kind: Kind) -> bool:
    """Whether workers of a kind can run an app with these needs at all. No count, no GPU needed."""
    if needs.ram_bytes and kind.ram_bytes and needs.ram_bytes > kind.ram_bytes:
        return False
    if not needs.gpu_count:
        return True
    return _enough_gpus(needs, kind) and kind.capacity_bytes(needs) >= needs.vram_bytes


def _enough_gpus(needs: Needs, kind: Kind) -> bool:
    if needs.gpu_type in (GpuType.ANY, GpuType.NONE):
        return len(kind.gpus) >= needs.gpu_count
    return sum(gpu_type is needs.gpu_type for gpu_type, _ in kind.gpus) >= needs.gpu_count


def admits(shape: Shape, worker: Worker) -> bool:
    """Whether a worker can run tasks of a shape, were it free."""
    return (not shape.workers or not worker.names.isdisjoint(shape.workers)) and fits(
        shape.needs, worker.kind
    )


def kinds(shape: Shape, fleet: Fleet) -> Iterator[Kind]:
    """Kinds of available workers that satisfy the needs."""
    return (kind for kind in fleet.of_kind if fits(shape.needs, kind))


def candidates(shape: Shape, fleet: Fleet, limit: int) -> Iterator[Worker]:
    """Available workers that can run tasks of a shape, a bounded number of them."""
    if shape.workers:
        found = (worker for name in shape.workers for worker in fleet.named.at(name).values())
        return islice((worker for worker in found if fits(shape.needs, worker.kind)), limit)
    return islice((w for kind in kinds(shape, fleet) for w in fleet.of_kind.at(kind).values()), limit)


def explain(shape: Shape, fleet: Fleet) -> Reason:
    """Why no available worker can run tasks of a shape. Cost: O(workers); asked once a shape and decision."""
    named = [w for w in fleet.workers.values() if not shape.workers or not w.names.isdisjoint(shape.workers)]
    able = [worker for worker in named if fits(shape.needs, worker.kind)]
    if able:
        return Reason(why=Why.UNAVAILABLE, text=_unavailable(shape, able))
    if shape.workers and not named:
        return Reason(why=Why.NO_MATCH, text=_unknown(shape, fleet))
    return Reason(why=Why.NO_MATCH, text=_missing(shape, named))


def _unavailable(shape: Shape, able: list[Worker]) -> str:
    if shape.workers:
        what, verb = f"workers: {list(shape.workers)}", "is" if len(shape.workers) == 1 else "are"
    elif len(able) == 1:
        what, verb = f"the only worker that could run this, {able[0].id},", "is"
    else:
        what, verb = f"all {len(able)} workers that could run this", "are"
    engines = {worker.engine.id: worker.engine for worker in able}.values()
    if not any(engine.running for engine in engines):
        return f"{what} {verb} offline"
    out = next((worker for worker in able if worker.engine.available and not worker.available), None)
    if out is not None:
        why = out.vram.trouble or f"{out.quarantine} (stoker workers release)"
        return f"{what} {verb} in quarantine or not available; {out.id}: {why}"
    if any(engine.draining for engine in engines):
        return f"{what} {verb} shutting down and take{'s' if verb == 'is' else ''} nothing new"
    return f"{what} {verb} not answering"


def _unknown(shape: Shape, fleet: Fleet) -> str:
    verb = "is" if len(shape.workers) == 1 else "are"
    return f"workers: {list(shape.workers)} {verb} unknown; {_known(fleet.workers.values())}"


def _known(workers: Iterable[Worker]) -> str:
    names = sorted(worker.id for worker in workers)
    if not names:
        return "no worker is registered"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"known: {', '.join(names[:NAMES_SHOWN])}{more}"


def _missing(shape: Shape, workers: list[Worker]) -> str:
    needs = shape.needs
    if not workers:
        return "no worker is registered"
    among = f" among {list(shape.workers)}" if shape.workers else ""
    with_gpus = [worker for worker in workers if worker.kind.gpus]
    if needs.gpu_count and not with_gpus:
        return f"no worker{among} has a GPU"
    enough = [worker for worker in with_gpus if _enough_gpus(needs, worker.kind)]
    if needs.gpu_count and not enough:
        return _missing_count(needs, with_gpus, among)
    if needs.gpu_count:
        largest = max(enough, key=lambda worker: worker.kind.capacity_bytes(needs))
        capacity = largest.kind.capacity_bytes(needs)
        if capacity < needs.vram_bytes:
            return (
                f"no worker{among} has {needs.vram_bytes / GB:.1f} GB of GPU memory; "
                f"the largest is {largest.id} with {capacity / GB:.1f} GB"
            )
    largest = max(workers, key=lambda worker: worker.kind.ram_bytes)
    return (
        f"no worker{among} has {needs.ram_bytes / GB:.1f} GB of memory; "
        f"the largest is {largest.id} with {largest.kind.ram_bytes / GB:.1f} GB"
    )


def _missing_count(needs: Needs, workers: list[Worker], among: str) -> str:
    largest = max(workers, key=lambda worker: len(worker.kind.gpus))
    have = sorted({gpu_type.value for worker in workers for gpu_type, _ in worker.kind.gpus})
    if needs.gpu_type not in (GpuType.ANY, GpuType.NONE) and needs.gpu_type.value not in have:
        return f"no worker{among} has a GPU of type {needs.gpu_type.value}; there are: {', '.join(have)}"
    kind = "" if needs.gpu_type in (GpuType.ANY, GpuType.NONE) else f"{needs.gpu_type.value} "
    return (
        f"no worker{among} has {needs.gpu_count} {kind}GPUs; "
        f"the largest is {largest.id} with {len(largest.kind.gpus)}"
    )
