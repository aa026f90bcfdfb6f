"""Which versions of an agent are kept."""

from stoker.agents.records import MAX_BYTES, MAX_VERSIONS, latest, version_of


def versions(count, chars):
    return [version_of({"system_prompt": f"{number}" + "x" * chars}, number) for number in range(count)]


def test_the_latest_of_many():
    made = versions(MAX_VERSIONS + 3, 10)
    assert latest(made) == tuple(made[3:])
    assert latest(made[:2]) == tuple(made[:2])
    assert latest([]) == ()


def test_of_large_ones_as_many_as_have_room_together_and_always_one():
    made = versions(5, MAX_BYTES // 2 - 100)
    assert latest(made) == tuple(made[3:])
    [huge] = versions(1, MAX_BYTES)
    assert latest([*made, huge]) == (huge,)
