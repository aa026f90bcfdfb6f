"""Fixtures of the tests that start processes."""

import sys
from pathlib import Path

import pytest
from agent_scene import AgentScene, Receiver
from instances import APPS, LIMIT_S, Driver

from stoker_worker.instance import Instance
from stoker_worker.instance_spec import InstanceSpec


@pytest.fixture
async def start(tmp_path):
    """A function that starts and sets up an app of tests/apps."""
    started = []

    async def start(
        app="odd", setup=None, python=sys.executable, *, ready=True, env=None, work_dir=None, **more
    ):
        lines = []
        spec = InstanceSpec(
            python=Path(python),
            app_dir=APPS / app,
            work_dir=work_dir or tmp_path / f"work{len(started)}",
            setup=setup or {},
            env=env or {},
            metadata={},
            stop_grace_s=1.0,
            **({"own_tmp": True} | more),
        )
        driver = Driver(None, lines, spec)
        driver.instance = instance = await Instance.start(spec, driver.took)
        started.append(instance)
        if ready:
            await instance.setup(LIMIT_S)
        return driver

    yield start
    for instance in started:
        await instance.stop("the test is over")


@pytest.fixture(params=["local", "s3"])
async def gateway(request, tmp_path, s3_server, store):
    """A gateway in this process, over each kind of file store."""
    from gateways import gateway_settings, running

    settings = gateway_settings(
        request.param, tmp_path, s3_server, store, allowed_origins=("https://app.example",)
    )
    async with running(settings) as made:
        yield made


@pytest.fixture
def receiver():
    """An address that tools and hooks call."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
async def scene(fake_store, tmp_path):
    """Chats without a system, whose model is deployed."""
    made = AgentScene(fake_store, tmp_path)
    await made.deploy_model()
    return made
