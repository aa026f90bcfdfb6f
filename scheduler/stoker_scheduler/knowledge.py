"""What has been learned of apps: seconds to prepare, load and run, and GPU memory. Pure bookkeeping.

Runs are judged by the latest ones (`durations`), other seconds are exponentially weighted averages, memory is the most
that was seen (`stoker.core.vram`). An unknown setup is judged by its app's other setups, then by a prior.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from stoker.core.messages import SetupKey
from stoker.core.sessions import plain_key
from stoker.core.vram import Peaks
from stoker_scheduler.durations import Durations, Recent

WEIGHT: Final = 0.3
"""Share of the newest measurement: three runs outweigh all before them."""
RUN_PRIOR: Final = Durations((5.0,))
LOAD_PRIOR_S: Final = 20.0
UNPARK_SHARE: Final = 0.25
"""Of the load time, what coming back from being parked is expected to take until it was measured."""
PREPARE_PRIOR_S: Final = 30.0
DEMAND_HALF_S: Final = 21_600.0
"""Six hours: what was hot this morning is worth half as much this evening. Chosen on the published trace, as the next five."""
VISIT_S: Final = 300.0
AGAIN: Final = 0.33
"""What a further task of the same visit counts: those of one caller in a row say less of who else will come."""
RECENT_S: Final = 1000.0
RECENT_IDLE_S: Final = 30.0
DEMAND_COMMON: Final = 150.0
"""The score of a setup that is wanted again in one of two cases, where two instances live on a worker; half as much for four."""
MAX_KEYS: Final = 20_000
"""Entries a table keeps, least lately learned first out: setups come from callers without bound."""


class Averages:
    """Exponentially weighted averages under string keys, of bounded number."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, float] = OrderedDict()

    def learn(self, key: str, value: float) -> None:
        """Weigh `value` in."""
        old = self._values.get(key)
        self._values[key] = value if old is None else old + WEIGHT * (value - old)
        self._values.move_to_end(key)
        if len(self._values) > MAX_KEYS:
            self._values.popitem(last=False)

    def get(self, *keys: str, default: float) -> float:
        """The average of the first key that has one."""
        for key in keys:
            value = self._values.get(key)
            if value is not None:
                return value
        return default

    def __contains__(self, key: str) -> bool:
        return key in self._values


class _Asked(NamedTuple):
    """What is known of a setup since its last task: the visits counted then, when it came, and from which API key."""

    visits: float
    at_ms: int
    key_id: str


class Demand:
    """How often setups are asked for: a count of visits that halves every `DEMAND_HALF_S`, and when the last task came.

    A visit begins with a task of another API key than the last, or `VISIT_S` after it; each further task of it counts
    `AGAIN`.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Asked] = OrderedDict()

    def note(self, key: str, at_ms: int, key_id: str) -> None:
        """A task of a setup was submitted by an API key; one that is older than the last was counted before."""
        last = self._seen.get(key)
        if last is None:
            visits = 1.0
        elif at_ms < last.at_ms:
            return
        else:
            passed_ms = at_ms - last.at_ms
            new = key_id != last.key_id or passed_ms > VISIT_S * 1000
            visits = _halved(last.visits, passed_ms) + (1.0 if new else AGAIN)
        self._seen[key] = _Asked(visits, at_ms, key_id)
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_KEYS:
            self._seen.popitem(last=False)

    def chance(self, key: str, now_ms: int, together: int) -> float:
        """How likely it is (0 to 1) that a setup is wanted again before its instance would be evicted anyway.

        Often and lately both count: a setup that was asked for a moment ago is as likely as one with
        `RECENT_S` / `RECENT_IDLE_S` visits in the last half-life. And the more instances live on a worker, the
        longer each of them stays there.

        Args:
            together: instances on its worker.
        """
        last = self._seen.get(key)
        if last is None:
            return 0.0
        idle_s = max(0, now_ms - last.at_ms) / 1000
        score = _halved(last.visits, idle_s * 1000) + RECENT_S / (RECENT_IDLE_S + idle_s)
        return score / (score + DEMAND_COMMON * 2 / max(2, together))


def _halved(visits: float, passed_ms: float) -> float:
    return float(visits * 0.5 ** (passed_ms / 1000 / DEMAND_HALF_S))


class Knowledge:
    """Learned seconds and bytes, and how often setups are asked for. Setup keys and app names cannot be equal: only names hold a slash.

    A session's instance is judged by the setup that it has loaded.
    """

    def __init__(self) -> None:
        self._run = Recent(MAX_KEYS)
        self._load = Averages()
        self._unpark = Averages()
        self._prepare = Averages()
        self._vram = Peaks()
        self._demand = Demand()

    def runs(self, key: SetupKey, app: str = "") -> Durations:
        """How long tasks run."""
        return self._run.get(plain_key(key), app, default=RUN_PRIOR)

    def run_s(self, key: SetupKey, app: str = "") -> float:
        """How long one task runs."""
        return self.runs(key, app).mean_s()

    def load_s(self, key: SetupKey, app: str = "") -> float:
        """How long the process and its setup take on a worker that has the environment."""
        return self._load.get(plain_key(key), app, default=LOAD_PRIOR_S)

    def unpark_s(self, key: SetupKey, app: str = "") -> float:
        """How long an instance that is parked on a worker takes to come back there."""
        return self._unpark.get(plain_key(key), app, default=UNPARK_SHARE * self.load_s(key, app))

    def prepare_s(self, env_key: str) -> float:
        """How long the environment takes on a machine that lacks it."""
        return self._prepare.get(env_key, default=PREPARE_PRIOR_S)

    def vram_bytes(self, key: SetupKey, declared: int, device: str = "") -> int:
        """GPU memory of an instance on a type of device: measured there, else elsewhere or declared, and a margin."""
        return self._vram.need(plain_key(key), device, declared)

    def chance(self, key: SetupKey, now_ms: int, together: int) -> float:
        """How likely a setup is wanted again soon; see `Demand.chance`."""
        return self._demand.chance(plain_key(key), now_ms, together)

    def note_submitted(self, key: SetupKey, at_ms: int, key_id: str) -> None:
        self._demand.note(plain_key(key), at_ms, key_id)

    def knows_run(self, key: SetupKey) -> bool:
        return plain_key(key) in self._run

    def knows_load(self, key: SetupKey) -> bool:
        return plain_key(key) in self._load

    def learn_run(self, key: SetupKey, app: str, seconds: float) -> None:
        self._run.learn(plain_key(key), seconds)
        if app:
            self._run.learn(app, seconds)

    def learn_load(self, key: SetupKey, app: str, seconds: float) -> None:
        self._load.learn(plain_key(key), seconds)
        if app:
            self._load.learn(app, seconds)

    def learn_unpark(self, key: SetupKey, app: str, seconds: float) -> None:
        self._unpark.learn(plain_key(key), seconds)
        if app:
            self._unpark.learn(app, seconds)

    def learn_prepare(self, env_key: str, seconds: float) -> None:
        self._prepare.learn(env_key, seconds)

    def learn_vram(self, key: SetupKey, measured: int, device: str = "") -> None:
        self._vram.learn(plain_key(key), device, measured)

    def note_vram(self, key: SetupKey, so_far: int, device: str) -> None:
        """An instance that lives on a type of device takes so much so far."""
        self._vram.at_least(plain_key(key), device, so_far)

    def infer_vram(self, key: SetupKey, needed: int, device: str) -> None:
        """Memory ran out: count the setup with so much on this type of device, until it is measured."""
        self._vram.infer(plain_key(key), device, needed)
