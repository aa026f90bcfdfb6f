"""Imports without the garbage collector between them."""

import gc

import pytest

from stoker.imports import uncollected


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_nothing_is_collected_within_and_what_was_made_is_never_looked_at_again():
    with uncollected():
        assert not gc.isenabled()
        made = [[] for _ in range(10)]
    assert gc.isenabled()
    assert not any(known is made for known in gc.get_objects())


def test_garbage_is_collected_again_after_a_failed_import():
    with pytest.raises(ModuleNotFoundError), uncollected():
        __import__("no_such_module")
    assert gc.isenabled()
