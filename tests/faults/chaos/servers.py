"""The servers under a run: the embedded one, a primary with a replica and Sentinels, or a cluster."""

import asyncio

from helpers import System, eventually, kill, wait_until
from redis import Redis
from server_groups import Cluster, Replicated

from stoker.embedded import EmbeddedServer
from stoker.server_address import redis_socket

BACK_S = 3.0
"""After a kill: long enough for the others to have noticed it."""


class One:
    """The embedded server; `stoker up` starts it again."""

    takes_faults = True

    def __init__(self, folder):
        self.env = {}

    def url(self, system: System):
        return f"unix://{redis_socket(system.data_dir)}"

    async def kill(self, system: System):
        if pid := system.pids["server"]:  # zero: it is away as it is
            kill(pid)

    def direct(self, system: System):
        return Redis(unix_socket_path=str(redis_socket(system.data_dir)))

    def stop(self):
        """It ended with the system."""


class _Group:
    takes_faults = False
    """A primary that is frozen and comes back would take writes that are lost: that is not promised."""

    def __init__(self, group):
        self._group = group
        self.env = {"STOKER_REDIS_URL": group.url}

    def url(self, system: System):
        return self._group.url

    async def kill(self, system: System):
        """Kill the primary, if others can take over; start it again when one has."""
        if not self._group.whole():
            return
        old = self._group.primary()
        old.kill()
        await asyncio.sleep(BACK_S)
        await eventually(lambda: self._group.primary() not in {old, None}, "another primary")
        old.start()

    def direct(self, system: System):
        primary = wait_until(self._group.primary, "a primary")
        return Redis(port=primary.port)

    def stop(self):
        self._group.stop()


class WithSentinels(_Group):
    def __init__(self, folder):
        super().__init__(Replicated(folder, replicas=2, safe=True))


class OfACluster(_Group):
    """RQ has a server of its own: it does not run on a cluster."""

    def __init__(self, folder):
        super().__init__(Cluster(folder, "stoker:{default}:", replicas=2, safe=True))
        self._jobs = EmbeddedServer(folder / "jobs")
        asyncio.run(self._jobs.start())
        self.env["STOKER_JOBS_REDIS_URL"] = self._jobs.url

    def stop(self):
        super().stop()
        asyncio.run(self._jobs.stop())


SERVERS = {"one": One, "sentinel": WithSentinels, "cluster": OfACluster}
