"""An owner's files, page by page."""

import pytest

from stoker.core.messages import StoredFile

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
