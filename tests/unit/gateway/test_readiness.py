"""Whether a task can run: what is missing is named, and a part that hears nothing is not there."""

import pytest

from stoker.protocol.pulses import Told
from stoker_gateway.readiness import DEAF_S, TOLD_DEAF_S, Engine, Facts, deaf, missing

BOX = {"id": "box", "workers": 2, "leased": True, "silent_s": {"inbox": 0.5, "lease": 3.0}}


def facts(leader="3:sched-1", engines=(BOX,), wake_s=0.3):
    told = (Told(process="sched-1", part="scheduler", silent_s={"wake": wake_s}),)
    return Facts(leader=leader, engines=[Engine(**engine) for engine in engines], told=told)


def test_nothing_is_missing_when_all_hear():
    assert missing(facts()) == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"leader": ""}, "No scheduler leads"),
        ({"wake_s": TOLD_DEAF_S + 1}, "sched-1) has read nothing for 10 s"),
        ({"engines": ()}, "No worker is registered"),
        ({"engines": (BOX | {"workers": 0},)}, "No worker is registered"),
        ({"engines": (BOX | {"leased": False},)}, "No worker is registered"),
        ({"engines": (BOX | {"silent_s": {"inbox": TOLD_DEAF_S + 1}},)}, "No worker reads its inbox (box)"),
    ],
    ids=("leader", "deaf-leader", "none", "empty", "lease-over", "deaf-inbox"),
)
def test_what_is_missing_is_named(given, words):
    assert words in missing(facts(**given))


def test_one_worker_that_hears_is_enough():
    deaf_one = BOX | {"id": "other", "silent_s": {"inbox": 60.0}}
    assert missing(facts(engines=(deaf_one, BOX))) == ""


def test_a_scheduler_that_tells_nothing_yet_is_believed():
    assert missing(facts(leader="4:new-one")) == ""


def test_a_gateway_that_hears_nothing_is_not_ready():
    assert deaf({"announcements": DEAF_S - 1}) == ""
    assert "nothing of its announcements for 6 s" in deaf({"tasks": 0.1, "announcements": DEAF_S + 1})
