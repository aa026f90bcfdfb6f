"""What has been learned of apps: seconds to prepare, load and run, and GPU memory. Pure bookkeeping.

Estimates are exponentially weighted. An unknown setup is judged by its app's other setups, then by a prior.
"""

from collections import OrderedDict
from typing import Final

from stoker.core.messages import SetupKey
from stoker.core.sessions import plain_key

WEIGHT: Final = 0.3
"""Share of the newest measurement: three runs outweigh all before them."""
RUN_PRIOR_S: Final = 5.0
LOAD_PRIOR_S: Final = 20.0
PREPARE_PRIOR_S: Final = 30.0
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


class Knowledge:
    """Learned seconds and bytes. Setup keys and app names cannot be equal: only names hold a slash.

    A session's instance is judged by the setup that it has loaded.
    """

    def __init__(self) -> None:
        self._run = Averages()
        self._load = Averages()
        self._prepare = Averages()
        self._vram = Averages()

    def run_s(self, key: SetupKey, app: str = "") -> float:
        """How long one task runs."""
        return self._run.get(plain_key(key), app, default=RUN_PRIOR_S)

    def load_s(self, key: SetupKey, app: str = "") -> float:
        """How long the process and its setup take on a worker that has the environment."""
        return self._load.get(plain_key(key), app, default=LOAD_PRIOR_S)

    def prepare_s(self, env_key: str) -> float:
        """How long the environment takes on a machine that lacks it."""
        return self._prepare.get(env_key, default=PREPARE_PRIOR_S)

    def vram_bytes(self, key: SetupKey, declared: int) -> int:
        """GPU memory of an instance: measured, else declared."""
        return int(self._vram.get(plain_key(key), default=declared))

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

    def learn_prepare(self, env_key: str, seconds: float) -> None:
        self._prepare.learn(env_key, seconds)

    def learn_vram(self, key: SetupKey, measured: int) -> None:
        self._vram.learn(plain_key(key), measured)
