"""Draining over HTTP, and a daemon that does not fit: who is told what."""

import asyncio
import subprocess
import sys

from app_bundles import data_of
from gateways import gateway_settings, running
from helpers import PATIENCE_S, environment
from protocol_scene import Scene

from stoker.core.messages import DrainOrder
from stoker.core.protocol_version import PROTOCOL_VERSION, Speaks
from stoker.protocol.scheduling import Scheduling


async def test_an_engine_is_drained_over_http(tmp_path, s3_server, store):
    scene = Scene(store)
    await scene.set_up()
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        http = gateway.client
        unknown = await http.post("/engines/nobody/drain")
        assert (unknown.status_code, "known: box" in unknown.json()["detail"]) == (404, True)
        assert (await gateway.open.post("/engines/box/drain")).status_code == 401

        await scene.assign()
        answer = await http.post("/engines/box/drain", json={"reason": "new driver"})
        engine = data_of(answer.raise_for_status())
        assert (engine["status"], engine["running_tasks"]) == ("draining", 1)
        assert engine["drain"] == {"reason": "new driver", "done": False}
        assert (await http.post("/engines/box/drain", json={"reason": "new driver"})).status_code == 200
        _, found = await store.engines.inbox("box", "0", 1)
        assert [m for _, m in found if isinstance(m, DrainOrder)] == [DrainOrder(reason="new driver")]

        await store.engines.deregister("box", scene.session)
        engine = data_of(await http.get("/engines/box"))
        assert (engine["status"], engine["drain"]["done"]) == ("stopped", True)
        [worker] = data_of(await http.get("/workers"))["items"]
        assert (worker["status"], worker["engine_status"]) == ("inactive", "stopped")

        await scene.set_up()  # started anew
        assert data_of(await http.get("/engines/box"))["drain"] is None
        assert (await http.post("/engines/box/update")).status_code == 200
        _, found = await store.engines.inbox("box", "0", 1)
        assert [m.restart for _, m in found if isinstance(m, DrainOrder)] == [True]
        await store.engines.deregister("box", scene.session)
        await scene.set_up()
        await store.engines.deregister("box", scene.session)
        away = await http.post("/engines/box/drain")
        assert (away.status_code, "not connected" in away.json()["detail"]) == (409, True)


async def test_a_daemon_that_does_not_fit_says_so_and_the_list_of_engines_does(
    tmp_path, s3_server, store, redis_server
):
    ahead = Speaks(version=PROTOCOL_VERSION + 2, oldest=PROTOCOL_VERSION + 1, release="ahead")
    await Scheduling(store._connection, store._keys, ahead).lead("me", 60)
    env = environment(
        STOKER_REDIS_URL=redis_server.url,
        STOKER_POOL=store.pool,
        STOKER_DATA_DIR=str(tmp_path / "daemon"),
        STOKER_NAME="old",
    )
    command = [sys.executable, "-m", "stoker_cli", "worker", "--workers", "1"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 2
    assert "Update the worker daemon" in done.stderr
    assert "engine.refused" in done.stdout + done.stderr
    engine = await store.engines.get("old")
    assert engine.status == "refused"
