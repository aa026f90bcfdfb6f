"""Another server takes over: a replica that Sentinels promote, with all writes or without the last; a cluster's replica."""

import asyncio
import contextlib
import re
import tempfile
from pathlib import Path

import httpx
import pytest
from helpers import EXAMPLES, PATIENCE_S, running_system, wait_until
from server_groups import Cluster, Replicated, follows

from stoker.embedded import EmbeddedServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

COMPLETED, RUNNING, ENDED = 9, 7, {9, 10, 11}
SHORT_S, LONG_S = 4, 15
LINES = 5


class Scene:
    """A system on servers that can fail."""

    def __init__(self, folder, group, **env):
        self.group = group
        with contextlib.ExitStack() as undo:
            undo.callback(group.stop)
            env = {"STOKER_REDIS_URL": group.url, "STOKER_LEASE_S": "30", **env}
            self.system = undo.enter_context(running_system(folder / "data", "--workers", "2", **env))
            self.system.deploy(EXAMPLES / "slow")
            self.close = undo.pop_all().close

    def submit(self, seconds):
        """Submit a task, as soon as the gateway takes it."""
        body = {"app": "examples/slow", "infra": "private", "input": {"seconds": seconds, "lines": LINES}}

        def taken():
            with self.system.client() as client:
                answer = client.post("/apps/run", json=body)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        return wait_until(taken, "the gateway to take a task").raise_for_status().json()["data"]["id"]

    def task(self, task_id):
        with self.system.client() as client:
            answer = client.get(f"/tasks/{task_id}")
        return (
            answer.json()["data"] if answer.status_code == httpx.codes.OK else {"status": answer.status_code}
        )

    def reaches(self, task_id, states):
        def reached():
            found = self.task(task_id)
            return found if found["status"] in states else None

        try:
            return wait_until(reached, f"task {task_id} in states {states}", PATIENCE_S * 2)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.task(task_id)}; {self.system.complaints()}") from None

    def ends_completed(self, task_id, attempt=1):
        task = self.reaches(task_id, ENDED)
        assert (task["status"], task["attempt"]) == (COMPLETED, attempt), task
        assert self.lines(task_id) == [f"line {n + 1} of {LINES}" for n in range(LINES)]

    def lines(self, task_id):
        def complete():
            with self.system.client(Accept="text/plain") as client:
                found = re.findall(r"line \d+ of \d+", client.get(f"/tasks/{task_id}/logs").text)
            return found if len(found) >= LINES else None

        return wait_until(complete, f"the log of {task_id}")


@pytest.fixture(scope="module")
def replicated():
    with (
        tempfile.TemporaryDirectory(prefix="stoker-failover-", ignore_cleanup_errors=True) as folder,
        contextlib.closing(Scene(Path(folder), Replicated(Path(folder)))) as made,
    ):
        yield made


def test_a_replica_takes_over_and_nothing_is_run_again(replicated):
    running, ending = replicated.submit(LONG_S), replicated.submit(SHORT_S)
    for task_id in (running, ending):
        replicated.reaches(task_id, {RUNNING})
    waiting = replicated.submit(0)
    old = replicated.group.primary()
    old.kill()
    wait_until(lambda: replicated.group.primary() is not old, "another primary")
    later = replicated.submit(0)
    for task_id in (running, ending, waiting, later):
        replicated.ends_completed(task_id)
    old.start()
    wait_until(lambda: follows(old), "the old primary to follow the new one")


def test_what_a_new_primary_does_not_know_is_compared_with_the_workers(replicated):
    """One goes on, one that had ended is run again, one that was just assigned begins anew."""
    goes_on, ended = replicated.submit(LONG_S), replicated.submit(SHORT_S)
    for task_id in (goes_on, ended):
        replicated.reaches(task_id, {RUNNING})
    assigned = replicated.submit(LONG_S)
    old, new = replicated.group.primary(), replicated.group.replica()
    written = old.info("replication")["master_repl_offset"]
    wait_until(lambda: new.info("replication")["slave_repl_offset"] >= written, "the replica to have it all")
    new.kill()
    replicated.ends_completed(ended)
    replicated.reaches(assigned, {RUNNING})
    forgotten = replicated.submit(0)
    old.kill()
    new.follow(old)
    wait_until(lambda: replicated.group.primary() is new, "another primary")
    replicated.ends_completed(goes_on)
    replicated.ends_completed(ended, attempt=2)
    replicated.ends_completed(assigned)
    assert replicated.task(forgotten)["status"] == httpx.codes.NOT_FOUND
    replicated.ends_completed(replicated.submit(0))


def test_a_cluster_loses_the_node_of_the_pool():
    with tempfile.TemporaryDirectory(prefix="stoker-cluster-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        jobs_server = EmbeddedServer(folder / "jobs")
        asyncio.run(jobs_server.start())
        cluster = Cluster(folder, "stoker:{default}:")
        scene = Scene(folder, cluster, STOKER_JOBS_REDIS_URL=jobs_server.url)
        try:
            running, ending = scene.submit(LONG_S), scene.submit(SHORT_S)
            for task_id in (running, ending):
                scene.reaches(task_id, {RUNNING})
            waiting = scene.submit(0)
            cluster.owner.kill()
            for task_id in (running, ending, waiting):
                scene.ends_completed(task_id)
            scene.ends_completed(scene.submit(0))
            cluster.owner.start()  # as a replica now; then it is made the primary again, with nobody killed
            wait_until(lambda: follows(cluster.owner), "the old primary to follow the new one")
            running = scene.submit(SHORT_S)
            scene.reaches(running, {RUNNING})
            cluster.owner.say("CLUSTER", "FAILOVER")
            wait_until(
                lambda: cluster.owner.info("replication")["role"] == "master", "the old primary's return"
            )
            scene.ends_completed(running)
        finally:
            scene.close()
            asyncio.run(jobs_server.stop())
