"""Which instances must go so that another one can live on a worker. Pure: facts in, a decision out.

The value of an instance is GreedyDual-Size-Frequency's: uses x load seconds per GiB, on top of the value of
the last one that was evicted, so that old value ages (Cherkasova 1998; FaasCache, ASPLOS'21).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from stoker.core.messages import SetupKey
from stoker.core.vram import GIB, wanted_bytes

SMALLEST_GIB: Final = 1.0
"""An instance without GPU memory still takes a process and RAM; it counts as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An instance as admission sees it. `fixed`: busy, loading or pinned, so it stays."""

    setup_key: SetupKey
    value: float
    vram_bytes: int = 0
    fixed: bool = False
    used_mono: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Evict these, in this order, each with its reason; then there is room."""

    evict: tuple[tuple[SetupKey, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """There is no room, whatever may go."""

    reason: str


def decide_admit(
    residents: Sequence[Standing],
    *,
    need_bytes: int,
    vram_bytes: int,
    max_residents: int,
    other_bytes: int = 0,
    ordered: Collection[SetupKey] = (),
) -> Admit | Refuse:
    """Make room for one more instance.

    Args:
        need_bytes: GPU memory that the newcomer is known to need; 0 = unknown, then only the count limits.
        vram_bytes: GPU memory of the worker; 0 = it has none.
        other_bytes: what of it is in use, and not by the residents.
        ordered: instances that the scheduler counted as gone; they go first, needed or not.
    """
    movable = sorted((r for r in residents if not r.fixed), key=lambda r: (r.value, r.used_mono))
    evict = [
        (r.setup_key, "the scheduler makes room for another app") for r in movable if r.setup_key in ordered
    ]
    movable = [r for r in movable if r.setup_key not in ordered]
    gone = {key for key, _ in evict}
    left = [r for r in residents if r.setup_key not in gone]
    count, used = len(left), sum(r.vram_bytes for r in left) + other_bytes
    wanted = wanted_bytes(need_bytes, vram_bytes, other_bytes)
    while movable and (reason := _lack(count, used, wanted, vram_bytes, max_residents)):
        least = movable.pop(0)
        evict.append((least.setup_key, f"least valuable instance when {reason}"))
        count, used = count - 1, used - least.vram_bytes
    reason = _lack(count, used, wanted, vram_bytes, max_residents)
    if not reason:
        return Admit(evict=tuple(evict))
    if other_bytes:
        reason += f" ({other_bytes / GIB:.1f} GiB are in use by other programs, or not freed yet)"
    return Refuse(reason=f"{reason}, and what is loaded is busy or pinned" if count else reason)


def value_of(clock: float, uses: int, load_s: float, vram_bytes: int) -> float:
    """What an instance is worth keeping; `clock` is the value of the last evicted one."""
    return clock + uses * load_s / max(vram_bytes / GIB, SMALLEST_GIB)


def _lack(count: int, used: int, wanted: int, vram_bytes: int, max_residents: int) -> str:
    """What is missing for one more, as a half sentence; '' when nothing is."""
    if count + 1 > max_residents:
        return f"the worker holds {count} of at most {max_residents} instances"
    if vram_bytes and wanted and used + wanted > vram_bytes:
        free = (vram_bytes - used) / GIB
        return f"{wanted / GIB:.1f} GiB of GPU memory are needed and {max(free, 0):.1f} GiB are free"
    return ""
