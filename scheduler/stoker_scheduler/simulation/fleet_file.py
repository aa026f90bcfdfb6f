"""The fleet of a simulation: which workers there are, and what loading costs on them."""

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import yaml
from msgspec import Struct

from stoker.core.errors import CallerError
from stoker_scheduler.simulation.numbers import GIGABYTES, SECONDS, Bounds, within

GB: Final = 10**9
LORA: Final = "/lora"
"""How the setup of a GenTD26 request ends that has adapters."""

MEASURED: Final = "load_latency_quantiles.csv"
"""The table of measured loading times that is published beside the trace."""

_COUNT: Final = Bounds(0, 100_000, "workers")
_MODELS: Final = Bounds(0, 1_000_000, "instances")
_DEVICE: Final = Bounds(0.001, GIGABYTES.most, "GB")
_MILLISECONDS: Final = Bounds(0, SECONDS.most * 1000, "milliseconds")


class FleetUnreadable(CallerError):
    """The file of a fleet cannot be used."""

    code = "fleet_unreadable"


class LoadsUnreadable(CallerError):
    """The measured loading times of a trace cannot be used."""

    code = "loads_unreadable"


class Machine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some workers that are alike: one device each."""

    count: int = 1
    vram_gb: float = 24.0
    models: int = 0
    """Instances at a time; 0 = as many as the memory holds."""
    host_gb: float = 0.0
    """Memory of the machine, for each of them, in which what makes room is parked; 0 = it is unloaded."""
    name: str = "gpu"


class Loads(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What loading takes. The quantiles are evenly spaced: a load is drawn from them, the same for each policy.

    `quantiles_s` stand in the place of `base_s`, `lora_quantiles_s` in that of `lora_s`.
    """

    base_s: float = 22.0
    lora_s: float = 4.4
    quantiles_s: tuple[float, ...] = ()
    lora_quantiles_s: tuple[float, ...] = ()
    unpark_s: float = 3.0
    """Until an instance that was parked is back on its device."""
    park_s: float = 0.0
    """How much longer a load takes for each instance that is parked for it."""


class Sizes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPU memory of an instance in GB: one size, or drawn for each setup from a range."""

    gb: float = 12.0
    to_gb: float = 0.0


class FleetFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fleet as described in YAML."""

    machines: tuple[Machine, ...]
    loads: Loads = Loads()
    sizes: Sizes = Sizes()

    def with_workers(self, count: int) -> "FleetFile":
        """The same kinds of machines, scaled to `count` workers in all; the last kind takes what is left.

        As far as `count` goes there is one of each kind: a model may fit on no other.
        """
        kinds = [machine for machine in self.machines if machine.count]
        left, shares = count, []
        for number, machine in enumerate(kinds, 1):
            others = len(kinds) - number
            share = max(1, round(count * machine.count / self.workers))
            shares.append(min(share, max(1, left - others), left))
            left -= shares[-1]
        shares[-1] += left
        scaled = (
            msgspec.structs.replace(machine, count=share)
            for machine, share in zip(kinds, shares, strict=True)
            if share
        )
        return msgspec.structs.replace(self, machines=tuple(scaled))

    @property
    def workers(self) -> int:
        return sum(machine.count for machine in self.machines)


def read_fleet(path: Path) -> FleetFile:
    """A fleet's file.

    Raises:
        FleetUnreadable: says which field, and what it should be.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = msgspec.convert(yaml.safe_load(text), FleetFile)
        _check(found)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FleetUnreadable(f"cannot read the fleet '{path}': {error}") from error
    return found


def _check(fleet: FleetFile) -> None:
    """That each number is one, and within its bounds.

    Raises:
        ValueError: names the field.
    """
    for number, machine in enumerate(fleet.machines):
        at = f"machines[{number}]"
        within(f"{at}.count", machine.count, _COUNT)
        within(f"{at}.vram_gb", machine.vram_gb, _DEVICE)
        within(f"{at}.models", machine.models, _MODELS)
        within(f"{at}.host_gb", machine.host_gb, GIGABYTES)
    if fleet.workers < 1:
        raise ValueError("it has no worker; a machine must have a count of 1 or more")
    loads, sizes = fleet.loads, fleet.sizes
    within("loads.base_s", loads.base_s, SECONDS)
    within("loads.lora_s", loads.lora_s, SECONDS)
    within("loads.unpark_s", loads.unpark_s, SECONDS)
    within("loads.park_s", loads.park_s, SECONDS)
    for number, seconds in enumerate(loads.quantiles_s):
        within(f"loads.quantiles_s[{number}]", seconds, SECONDS)
    for number, seconds in enumerate(loads.lora_quantiles_s):
        within(f"loads.lora_quantiles_s[{number}]", seconds, SECONDS)
    within("sizes.gb", sizes.gb, GIGABYTES)
    within("sizes.to_gb", sizes.to_gb, GIGABYTES)
    if 0 < sizes.to_gb < sizes.gb:
        raise ValueError(f"sizes.to_gb is {sizes.to_gb:g}; it must be 0, or sizes.gb ({sizes.gb:g}) or more")


def load_times(loads: Loads, seed: int) -> Callable[[int, str], float]:
    """Seconds that a load takes, by the number of the request that causes it and by its setup."""

    def seconds(number: int, setup: str) -> float:
        found = _drawn(loads.quantiles_s, f"{seed}/{number}") if loads.quantiles_s else loads.base_s
        if not setup.endswith(LORA):
            return found
        if loads.lora_quantiles_s:
            return found + _drawn(loads.lora_quantiles_s, f"{seed}/{number}{LORA}")
        return found + loads.lora_s

    return seconds


def instance_sizes(sizes: Sizes, seed: int) -> Callable[[str], int]:
    """Bytes of GPU memory that an instance of a setup takes."""

    def size(setup: str) -> int:
        if not sizes.to_gb:
            return int(sizes.gb * GB)
        model = setup.removesuffix(LORA)
        drawn = random.Random(f"{seed}/{model}").uniform(sizes.gb, sizes.to_gb)  # noqa: S311 - no secret
        return int(drawn * GB)

    return size


def measured_loads(trace: Path) -> Loads:
    """The loading times that were published beside a trace of GenTD26: quantiles of base models and of LoRA adapters.

    Raises:
        LoadsUnreadable: the table is not there, or is none; says where it should lie and what it should hold.
    """
    path = trace.with_name(MEASURED)
    base_s: list[float] = []
    lora_s: list[float] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, strict=True)
            for row in table:
                line = f"line {table.line_num}: "
                base_s.append(within(f"{line}base_model_ms", row.get("base_model_ms"), _MILLISECONDS) / 1000)
                lora_s.append(within(f"{line}lora_ms", row.get("lora_ms"), _MILLISECONDS) / 1000)
    except (OSError, ValueError, csv.Error) as error:
        raise LoadsUnreadable(
            f"cannot read measured loads from '{path}': {error}; the table lies beside the trace and has the "
            f"columns base_model_ms and lora_ms, one row for each of evenly spaced quantiles"
        ) from error
    if not base_s:
        raise LoadsUnreadable(f"the table '{path}' has no row")
    return Loads(quantiles_s=tuple(base_s), lora_quantiles_s=tuple(lora_s))


def _drawn(quantiles: tuple[float, ...], seed: str) -> float:
    share = random.Random(seed).random()  # noqa: S311 - no secret
    return quantiles[min(int(share * len(quantiles)), len(quantiles) - 1)]
