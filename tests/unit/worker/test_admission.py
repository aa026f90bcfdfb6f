"""Who must go when one more instance wants to live on a worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_worker.admission import GIB, Admit, Refuse, Standing, decide_admit, value_of


def standing(key, value=1.0, gib=0, **more):
    return Standing(setup_key=key, value=value, vram_bytes=gib * GIB, **more)


def decide(residents, need=0, vram=0, most=2, ordered=(), other=0):
    decision = decide_admit(
        residents,
        need_bytes=need * GIB,
        vram_bytes=vram * GIB,
        max_residents=most,
        other_bytes=other * GIB,
        ordered=ordered,
    )
    return [key for key, _ in decision.evict] if isinstance(decision, Admit) else decision


@pytest.mark.parametrize(
    ("residents", "facts", "evicted"),
    [
        ([], {}, []),
        ([standing("a")], {}, []),
        ([standing("a", 5), standing("b", 1)], {}, ["b"]),
        ([standing("a", 1, used_mono=9), standing("b", 1, used_mono=3)], {}, ["b"]),
        ([standing("a", 1, fixed=True), standing("b", 9)], {}, ["b"]),
        ([standing("a", 9)], {"ordered": ("a",)}, ["a"]),
        ([standing("a", 9), standing("b", 1)], {"ordered": ("a",)}, ["a"]),
        ([standing("a", fixed=True)], {"ordered": ("a",)}, []),
        ([standing("a", 1, 10), standing("b", 2, 10)], {"need": 8, "vram": 24, "most": 9}, ["a"]),
        ([standing("a", 1, 10), standing("b", 2, 10)], {"need": 20, "vram": 24, "most": 9}, ["a", "b"]),
        ([standing("a", 1, 10)], {"need": 0, "vram": 8, "most": 9}, []),
        ([standing("a", 1, 10)], {"need": 99, "vram": 24, "most": 9}, ["a"]),
        ([standing("a", 1, 10)], {"need": 10, "vram": 24, "most": 9, "other": 4}, []),
        ([standing("a", 1, 10)], {"need": 10, "vram": 24, "most": 9, "other": 5}, ["a"]),
        ([standing("a", 1, 10)], {"need": 24, "vram": 24, "most": 9, "other": 1}, ["a"]),
    ],
)
def test_the_least_valuable_go_and_only_as_many_as_needed(residents, facts, evicted):
    assert decide(residents, **facts) == evicted


def test_a_worker_full_of_busy_instances_refuses_and_says_why():
    refusal = decide([standing("a", fixed=True), standing("b", fixed=True)])
    assert refusal == Refuse(
        reason="the worker holds 2 of at most 2 instances, and what is loaded is busy or pinned"
    )


def test_memory_that_is_missing_is_named():
    refusal = decide([standing("a", fixed=True, gib=20)], need=8, vram=24)
    assert isinstance(refusal, Refuse)
    assert refusal.reason.startswith("8.0 GiB of GPU memory are needed and 4.0 GiB are free")


def test_memory_that_others_hold_is_named_also_on_an_empty_worker():
    assert decide([], need=20, vram=24, other=12) == Refuse(
        reason="20.0 GiB of GPU memory are needed and 12.0 GiB are free "
        "(12.0 GiB are in use by other programs, or not freed yet)"
    )


def test_every_eviction_has_a_reason():
    decision = decide_admit(
        [standing("a"), standing("b")], need_bytes=0, vram_bytes=0, max_residents=1, ordered=("a",)
    )
    assert dict(decision.evict) == {
        "a": "the scheduler makes room for another app",
        "b": "least valuable instance when the worker holds 1 of at most 1 instances",
    }


def test_value_grows_with_uses_and_load_time_and_falls_with_size():
    small = value_of(0, 2, 10, 0)
    assert value_of(0, 3, 10, 0) > small
    assert value_of(0, 2, 20, 0) > small
    assert value_of(0, 2, 10, 8 * GIB) < small
    assert value_of(7, 2, 10, 0) == small + 7


RESIDENTS = st.lists(
    st.builds(
        Standing,
        setup_key=st.uuids().map(str),
        value=st.floats(0, 100),
        vram_bytes=st.integers(0, 40).map(lambda gib: gib * GIB),
        fixed=st.booleans(),
    ),
    max_size=8,
)


@given(RESIDENTS, st.integers(0, 40), st.integers(0, 80), st.integers(1, 8), st.integers(0, 80))
def test_admission_never_evicts_a_fixed_instance_and_never_overcommits(residents, need, vram, most, other):
    decision = decide_admit(
        residents,
        need_bytes=need * GIB,
        vram_bytes=vram * GIB,
        max_residents=most,
        other_bytes=other * GIB,
    )
    wanted = min(need, vram - other if other <= 1 else vram)
    if isinstance(decision, Refuse):
        assert any(resident.fixed for resident in residents) or other + wanted > vram
        return
    gone = {key for key, _ in decision.evict}
    assert not {r.setup_key for r in residents if r.fixed} & gone
    left = [r for r in residents if r.setup_key not in gone]
    assert len(left) < most
    used = sum(r.vram_bytes for r in left)
    assert not vram or wanted <= 0 or used + (other + wanted) * GIB <= vram * GIB
