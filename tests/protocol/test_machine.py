"""No order of messages breaks the protocol; and a protocol that is broken on purpose is found out."""

import asyncio

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from protocol.lifecycle import Lifecycle
from protocol.mutations import MUTATIONS, apply
from protocol.session_lifecycle import SessionLifecycle

from stoker.core.errors import ScriptFailed, StokerError, StoreUnavailable
from stoker.core.states import TaskState as S

pytestmark = pytest.mark.protocol

STORY = [
    ("submit", True),
    ("die_while_assigning", 0, "one", 1),
    ("submit", True),
    ("take_the_lead", 1),
    ("a_former_leader_can_do_nothing", 0, "one"),
    ("assign", 0, "one", True),
    ("accept", 0, S.PREPARING, True),
    ("append", 0, 1, True),
    ("fall_silent", "one"),
    ("reap", True),
    ("renew", "one", False),
    ("take_orphans_back", True),
    ("assign", 0, "two", False),
    ("assign", 1, "two", False),
    ("move", 2, S.SERVING, False),  # the engine that was lost goes on as if nothing had been
    ("finish", 2, S.FAILED, False),
    ("accept", 1, S.RUNNING, False),
    ("append", 1, 1, True),
    ("cancel", 0, True),
    ("renew", "two", True),
    ("finish", 1, S.COMPLETED, True),
    ("finish", 1, S.FAILED, False),
    ("hand_back", 0),
    ("submit", False),
    ("assign", 2, "two", False),
    ("accept", 0, S.PREPARING, False),
    ("register", "two", True),
    ("leave", "two"),
    ("take_orphans_back", False),
    ("register", "two", False),
    ("assign", 2, "two", False),
    ("accept", 0, S.SERVING, False),
    ("leave", "two"),
    ("take_orphans_back", False),
    ("take_orphans_back", False),
    ("register", "one", False),
    ("drain", "one", True),
    ("report", "one"),
    ("assign", 0, "one", False),
    ("fall_silent", "one"),
    ("reap", False),
    ("register", "one", True),
    ("assign", 0, "one", False),
    ("leave", "one"),
    ("drain", "one", False),
    ("register", "one", False),
    ("assign", 2, "one", False),  # it lost two machines: now it waits
    ("its_time_comes", 2),
    ("take_the_lead", 0),
    ("a_former_leader_can_do_nothing", 2, "one"),
    ("release", True),
    ("assign", 2, "one", False),
    ("accept", 0, S.RUNNING, False),
    ("fail_for_now", 0, True, True),
    ("delete", 2),
    ("delete", 0),
    ("submit", False),
    ("assign", 1, "one", False),
    ("fail_for_now", 0, False, True),
    ("assign", 1, "one", False),
    ("cancel", 1, False),
    ("submit", False),
    ("assign", 2, "one", False),
    ("its_time_is_over", 2, True, False),
    ("its_time_is_over", 2, False, True),
    ("finish", 0, S.COMPLETED, False),
    ("delete", 2),
    ("submit", False, 0, 1),
    ("assign", 2, "one", False),
    ("register", "one", False),
    ("take_orphans_back", False),  # nobody had taken it: its only attempt is left
    ("assign", 2, "one", False),
    ("accept", 0, S.PREPARING, False),
    ("hand_back", 0),
    ("assign", 2, "one", False),
    ("accept", 0, S.RUNNING, False),
    ("hand_back", 0),  # here it may have begun
    ("delete", 2),
    ("submit_for_later", True),
    ("its_time_comes", 2),
    ("release", False),
    ("assign", 2, "one", False),
    ("register", "one", False),
    ("take_orphans_back", False),
    ("assign", 2, "one", False),
    ("read_wake_anew",),
    *[("take_orphans_back", False)] * 10,
]
"""One of each: what the mutations break lies on the way. `make fuzz` makes up its own."""


def tell(story, url):
    """Play a story, with all checks after every step."""
    Lifecycle.url = url
    machine = Lifecycle()
    machine.start()
    try:
        for step, *arguments in story:
            getattr(machine, step)(*arguments)
            machine.the_server_agrees_with_the_model()
            machine.every_task_has_its_place()
    except BaseException:
        machine.close()
        raise
    machine.teardown()


@pytest.mark.parametrize(("machine", "stories"), [(Lifecycle, 20), (SessionLifecycle, 8)])
async def test_no_order_of_messages_breaks_the_protocol(redis_server, machine, stories):
    machine.url = redis_server.url
    chosen = settings(
        max_examples=stories,
        stateful_step_count=40,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)


async def test_the_story_is_possible(redis_server):
    await asyncio.to_thread(tell, STORY, redis_server.url)


@pytest.mark.parametrize("name", sorted(MUTATIONS))
async def test_a_broken_protocol_is_found_out(redis_server, monkeypatch, name):
    apply(name, monkeypatch)
    with pytest.raises((AssertionError, StokerError, pytest.fail.Exception)) as found:
        await asyncio.to_thread(tell, STORY, redis_server.url)
    # A script that cannot run, or a server that is away, says nothing about what the mutation broke.
    assert not isinstance(found.value, ScriptFailed | StoreUnavailable)
