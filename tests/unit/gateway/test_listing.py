import msgspec
import pytest

from stoker.core.errors import InvalidRequest
from stoker_gateway.listing import (
    SCAN_BATCH,
    SCAN_LIMIT,
    Filter,
    ListQuery,
    Search,
    chooser,
    cursor_of,
    place_of,
    query_of,
    read_page,
)

FIELDS = ("name", "kind", "size", "note")
ROWS = [
    {"name": "Cat.png", "kind": "image/png", "size": 10, "note": None},
    {"name": "dog [1].mp4", "kind": "video/mp4", "size": 200, "note": "a CAT runs"},
]


def names(**query):
    is_chosen = chooser(msgspec.convert(query, ListQuery), FIELDS, ("name", "note"))
    return [row["name"] for row in ROWS if is_chosen(row)]


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("kind", "eq", "image/png", [0]), ("kind", "=", "IMAGE/PNG", []), ("kind", "ne", "image/png", [1]),
        ("kind", "like", "image/%", [0]), ("kind", "ilike", "%MP4", [1]), ("kind", "like", "png", [0]),
        ("name", "like", "dog [1]%", [1]), ("name", "like", "dog ?1%", []), ("name", "contains", "cat", [0]),
        ("size", "gt", 10, [1]), ("size", ">=", 10, [0, 1]), ("size", "lt", 200, [0]), ("size", "lte", 9, []),
        ("size", "gt", "x", []), ("size", "in", [10, 11], [0]), ("kind", "in", "image/png", []),
        ("note", "contains", "cat", [1]), ("note", "ne", "x", [1]),
    ],
)  # fmt: skip
def test_a_filter_chooses(field, operator, value, expected):
    condition = {"field": field, "operator": operator, "value": value}
    assert names(filters=[condition]) == [ROWS[i]["name"] for i in expected]


def test_all_filters_and_the_search_must_agree():
    both = [{"field": "size", "operator": "gt", "value": 5}, {"field": "kind", "value": "video/mp4"}]
    assert names(filters=both) == ["dog [1].mp4"]
    assert names(filters=both, search={"term": "nothing"}) == []


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("cat", [0, 1]), ({"term": " CAT "}, [0, 1]), ({"term": "cat", "fields": ["name"]}, [0]),
        ({"term": "cat.png", "exact": True}, [0]), ({"term": "cat", "exact": True}, []), ({}, [0, 1]), ("", [0, 1]),
    ],
)  # fmt: skip
def test_a_search_looks_everywhere_or_where_it_is_told(search, expected):
    assert names(search=search) == [ROWS[i]["name"] for i in expected]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (ListQuery(filters=[Filter(field="owner")]), "filters.field: 'owner' is unknown; it may be name, kind"),
        (ListQuery(filters=[Filter(field="name", operator="~")]), "filters.operator: '~' is unknown; it may be eq"),
        (ListQuery(search=Search(term="x", fields=["y"])), "search.fields: 'y' is unknown"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_named_with_what_is_known(query, words):
    with pytest.raises(InvalidRequest) as caught:
        chooser(query, FIELDS, ())
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"filters": [{"field": "name"}] * 51}, "filters: 51 are too many; at most 50"),
        (
            {"filters": [{"field": "size", "operator": "in", "value": [1] * 501}] * 2},
            "filters.value: 1002 values in all filters together are too many; at most 1000",
        ),
        (
            {"filters": [{"field": "name", "operator": "like", "value": "%" * 1001}]},
            "filters.value: 1001 characters are too many; at most 1000",
        ),
        (
            {"filters": [{"field": "name", "operator": "contains", "value": ["x" * 1001]}]},
            "filters.value: 1005 characters are too many; at most 1000",
        ),
        (
            {"search": {"term": "x", "fields": ["name"] * 51}},
            "search.fields: 51 are too many; at most 50",
        ),
    ],
)
def test_what_is_compared_with_each_record_has_bounds(query, words):
    with pytest.raises(InvalidRequest) as caught:
        names(**query)
    assert words in caught.value.message


def test_what_is_within_the_bounds_is_compared():
    query = [{"field": "size", "operator": "in", "value": [10, *range(1000, 1999)]}]
    query += [{"field": "kind", "operator": "like", "value": "image/%".ljust(1000, "%")}] * 49
    assert names(filters=query, search={"term": "cat", "fields": ["name"] * 50}) == ["Cat.png"]


def test_a_query_string_says_the_same():
    query = query_of(
        {"limit": "3", "search": "cat", "filters": '[{"field":"kind","value":"x"}]', "other": "1"}
    )
    assert query == ListQuery(limit=3, search="cat", filters=[Filter(field="kind", value="x")])
    assert query_of({"search": '{"term":"a"}'}).search == Search(term="a")


@pytest.mark.parametrize(
    "given", [{"limit": "x"}, {"direction": "up"}, {"filters": "{"}, {"filters": "[1]"}, {"search": "{"}]
)
def test_a_query_string_that_is_none_is_refused(given):
    with pytest.raises(InvalidRequest, match="Input validation failed"):
        query_of(given)


def test_a_cursor_is_read_back_and_another_text_refused():
    assert place_of(cursor_of((123, "abc"))) == (123, "abc")
    for text in ("x", "éé", "bm9uZQ", "20"):
        with pytest.raises(InvalidRequest, match="cursor"):
            place_of(text)


class Numbers:
    """Records 0 (oldest) .. count-1, of which some are wanted."""

    def __init__(self, count, every=1):
        self.count, self.every, self.read = count, every, 0

    async def beyond(self, at, limit, newer):
        if newer:
            found = list(range(at[0] + 1, self.count))
        else:
            found = list(range((at[0] if at else self.count) - 1, -1, -1))
        self.read += len(found[:limit])
        return found[:limit], len(found) >= limit

    async def wanted(self, batch):
        return [n for n in batch if n % self.every == 0]

    async def page(self, **query):
        return await read_page(ListQuery(**query), self.beyond, lambda n: (n, str(n)), self.wanted)


async def walk(numbers, **query):
    pages, cursor = [], None
    while True:
        page = await numbers.page(cursor=cursor, **query)
        pages.append(page.items)
        cursor = page.next_cursor
        if not cursor:
            return pages


@pytest.mark.parametrize(("count", "every"), [(0, 1), (1, 1), (7, 1), (8, 1), (1000, 7), (400, 1)])
async def test_pages_hold_everything_once(count, every):
    pages = await walk(Numbers(count, every), limit=4)
    assert [n for page in pages for n in page] == [n for n in range(count - 1, -1, -1) if n % every == 0]
    assert all(len(page) <= 4 for page in pages)


async def test_the_page_before_is_the_one_that_one_came_from():
    numbers = Numbers(10)
    first = await numbers.page(limit=4)
    second = await numbers.page(limit=4, cursor=first.next_cursor)
    back = await numbers.page(limit=4, cursor=second.prev_cursor, direction="prev")
    assert back.items == first.items == [9, 8, 7, 6]
    assert (back.prev_cursor, first.prev_cursor) == ("", "")
    again = await numbers.page(limit=4, cursor=back.next_cursor)
    assert again.items == second.items


async def test_a_filter_that_lets_nothing_through_reads_a_bounded_part():
    numbers = Numbers(SCAN_LIMIT * 2, every=SCAN_LIMIT * 3)
    page = await numbers.page(limit=4)
    assert page.items == []
    assert numbers.read <= SCAN_LIMIT + SCAN_BATCH
    assert page.next_cursor
    assert [n for page in await walk(numbers, limit=4) for n in page] == [0]


@pytest.mark.parametrize(("asked", "got"), [(None, 10), (0, 10), (3, 3), (-1, 1), (1000, 100)])
async def test_the_limit_has_a_default_and_bounds(asked, got):
    page = await Numbers(200).page(limit=asked)
    assert (len(page.items), page.limit) == (got, got)
