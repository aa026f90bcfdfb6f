"""An owner's files, page by page; and who uses a file."""

import pytest

from stoker.core.messages import StoredFile
from stoker.protocol import connection, files
from stoker.protocol.files import USE_GRACE_MS

MOMENTS = {"a": 1, "b": 2, "c": 2, "d": 2, "e": 2, "f": 2, "g": 3}


def file(name):
    return StoredFile(
        id=name,
        secret="s",
        owner_id="u",
        filename="f",
        content_type="",
        size=1,
        created_ms=MOMENTS[name],
    )


@pytest.mark.parametrize("newer", [False, True])
async def test_a_list_goes_on_where_it_was_also_when_that_file_is_deleted(store, newer):
    for name in MOMENTS:
        await store.files.put(file(name))
    for last, moment in MOMENTS.items():
        beyond = [name for name in MOMENTS if (name > last if newer else name < last)]
        expected = (beyond if newer else beyond[::-1], False)
        for delete in (False, True):
            if delete:
                await store.files.delete(file(last))
            found, more = await store.files.after("u", (moment, last), 10, newer=newer)
            assert ([one.id for one in found], more) == expected, (last, delete)
        await store.files.put(file(last))


@pytest.mark.parametrize("living", [None, 0, 4, 10])
async def test_a_file_may_have_more_users_than_calls_may_wait(store, monkeypatch, living):
    monkeypatch.setattr(files, "USERS_AT_ONCE", 3)
    monkeypatch.setattr(connection, "QUEUE_LIMIT", 5)
    users = [f"t{number:02}" for number in range(11)]
    for number, user in enumerate(users):
        await store.files.use(["f"], user, number)
    if living is not None:
        await store._connection.command("SET", store._keys.task(users[living]), "x")
    assert await store.files.is_used("f", USE_GRACE_MS + 100) == (living is not None)
    left = await store._connection.command("ZRANGE", store._keys.file_users("f"), 0, -1)
    behind = len(users) if living is None else living // 3 * 3 + 3  # the part of the living one is the last
    expected = [user for number, user in enumerate(users) if number == living or number >= behind]
    assert [member.decode() for member in left] == expected
