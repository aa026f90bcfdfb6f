"""Draining over HTTP: what the route answers, whom it refuses, and what is shown afterwards."""

from app_bundles import data_of
from gateways import gateway_settings, running
from protocol_scene import Scene

from stoker.core.messages import DrainOrder


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
