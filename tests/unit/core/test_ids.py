import pytest

from stoker.core.errors import InvalidRequest
from stoker.core.ids import check_name, new_id, short_id

pytestmark = pytest.mark.unit


def test_ids_are_distinct_and_safe_in_keys():
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(check_name("id", i) == i for i in ids)


def test_a_short_id_is_the_beginning():
    assert short_id("abcdefghij") == "abcdefgh"


@pytest.mark.parametrize("name", ["", "a:b", "A", "a{b", "-a", "a" * 64, "é", "a\n"])
def test_names_that_could_confuse_keys_are_refused(name):
    with pytest.raises(InvalidRequest, match="engine id"):
        check_name("engine id", name)
