"""The fleet of a simulation: which workers there are, and what loading costs on them."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import yaml
from msgspec import Struct

from stoker.core.errors import CallerError

GB: Final = 10**9
LORA: Final = "/lora"
"""How the setup of a GenTD26 request ends that has adapters."""


class FleetUnreadable(CallerError):
    """The file of a fleet cannot be used."""

    code = "fleet_unreadable"


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
    """What loading takes. `quantiles_s`: drawn from these, evenly spaced, instead of `base_s`; the same for each policy."""

    base_s: float = 22.0
    lora_s: float = 4.4
    quantiles_s: tuple[float, ...] = ()
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
        """The same kinds of machines, scaled to `count` workers in all; the last kind takes what is left."""
        total = sum(machine.count for machine in self.machines)
        left, scaled = count, []
        for machine in self.machines:
            share = min(left, round(count * machine.count / total))
            left -= share
            scaled.append(msgspec.structs.replace(machine, count=share))
        scaled[-1] = msgspec.structs.replace(scaled[-1], count=scaled[-1].count + left)
        return msgspec.structs.replace(self, machines=tuple(each for each in scaled if each.count))

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
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise FleetUnreadable(f"cannot read the fleet '{path}': {error}") from error
    if found.workers < 1 or any(m.count < 0 or m.vram_gb <= 0 for m in found.machines):
        raise FleetUnreadable(f"the fleet '{path}' needs at least one worker, and memory on each")
    return found


def load_times(loads: Loads, seed: int) -> Callable[[int, str], float]:
    """Seconds that a load takes, by the number of the request that causes it and by its setup."""

    def seconds(number: int, setup: str) -> float:
        base_s = loads.base_s
        if loads.quantiles_s:
            drawn = random.Random(f"{seed}/{number}").random()  # noqa: S311 - no secret
            base_s = loads.quantiles_s[min(int(drawn * len(loads.quantiles_s)), len(loads.quantiles_s) - 1)]
        return base_s + (loads.lora_s if setup.endswith(LORA) else 0.0)

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
