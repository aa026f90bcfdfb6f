"""Neighbouring versions work together; an impossible pair is told what to update."""

import pytest

from stoker.core.protocol_version import OURS, Speaks, agree, disagreement


def speaks(version, oldest):
    return Speaks(version=version, oldest=oldest, release=f"0.{version}")


@pytest.mark.parametrize(
    ("worker", "control", "fits"),
    [
        ((5, 4), (5, 4), True),
        ((4, 3), (5, 4), True),
        ((6, 5), (5, 4), True),
        ((3, 2), (5, 4), False),
        ((7, 6), (5, 4), False),
        ((4, 4), (5, 5), False),
        ((5, 5), (4, 4), False),
    ],
)
def test_neighbours_agree(worker, control, fits):
    assert agree(speaks(*worker), speaks(*control)) is fits
    assert (disagreement("box", speaks(*worker), speaks(*control)) == "") is fits


def test_a_disagreement_says_which_side_to_update():
    old = disagreement("box", speaks(3, 2), speaks(5, 4))
    assert "'box' (release 0.3) speaks version 3" in old
    assert "control plane (release 0.5) speaks 5" in old
    assert "Update the worker daemon" in old
    assert "Update the control plane" in disagreement("box", speaks(7, 6), speaks(5, 4))


def test_this_release_works_with_itself_and_takes_what_it_says():
    assert agree(OURS, OURS)
    assert OURS.oldest <= OURS.version
