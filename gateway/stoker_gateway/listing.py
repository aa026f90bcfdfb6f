"""Lists as the platform asks for them: cursor, direction, filters, search. Pure, but for the reading of pages."""

import base64
import binascii
import fnmatch
import functools
import operator
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from stoker.core.errors import InvalidRequest
from stoker.protocol.pages import Place

DEFAULT_LIMIT: Final = 10
"""Of files."""
LIST_LIMIT: Final = 20
"""Where the platform names none."""
MAX_LIMIT: Final = 100
SCAN_BATCH: Final = 200
SCAN_LIMIT: Final = 5000
"""Records that one request looks at when a filter lets few through; the cursor goes on from there."""
MAX_FILTERS: Final = 50
MAX_VALUES: Final = 1_000
"""Of all filters together."""
MAX_VALUE_CHARS: Final = 1_000
MAX_SEARCH_FIELDS: Final = 50
"""All of this is compared with each record, and nothing else is served meanwhile."""

Row = Mapping[str, Any]
T = TypeVar("T")


class Filter(Struct, kw_only=True):
    """A condition on one field."""

    field: str
    operator: str = "eq"
    value: Any = None


class Search(Struct, kw_only=True):
    """A text to look for, in some fields or in all that hold text."""

    term: str = ""
    fields: list[str] = []
    exact: bool = False


class ListQuery(Struct, kw_only=True):
    """Which part of a list."""

    cursor: str | None = None
    limit: int | None = None
    direction: Literal["next", "prev", ""] | None = None
    filters: list[Filter] | None = None
    search: Search | str | None = None


def plain(query: ListQuery | None, *, searched: bool = False, filtered: Collection[str] = ()) -> ListQuery:
    """The query of a list that goes forward only, and is searched or filtered only as far as it says.

    Args:
        filtered: the fields whose filters the list heeds; with the operator `eq`.

    Raises:
        InvalidRequest: it asks for more; an answer that ignores that would be taken for what was asked.
    """
    query = query or ListQuery()
    others = [
        f.field for f in query.filters or () if f.field not in filtered or f.operator not in {"eq", "=", "=="}
    ]
    if others:
        may = f"it is filtered by {', '.join(filtered)} alone" if filtered else "it has none; leave them out"
        raise InvalidRequest(
            f"Input validation failed: filters: {', '.join(others)}: not of this list; {may}"
        )
    if term_of(query) and not searched:
        raise InvalidRequest("Input validation failed: search: this list is not searched; leave it out")
    if query.direction == "prev" and query.cursor:
        raise InvalidRequest("Input validation failed: direction: this list goes on by next_cursor only")
    return query


def term_of(query: ListQuery) -> str:
    """What is looked for, in small letters; "" = nothing."""
    return (query.search.term if isinstance(query.search, Search) else query.search or "").strip().lower()


class Page(Struct, Generic[T]):
    """One page, newest first, and what lies beside it."""

    items: list[T]
    limit: int
    next_cursor: str = ""
    prev_cursor: str = ""


def _text(value: Any) -> str:
    return str(value).lower()


def _like(have: Any, want: Any) -> bool:
    """SQL's LIKE without case: % is any text; without one the text may stand anywhere."""
    pattern = _text(want)
    if "%" not in pattern:
        return pattern in _text(have)
    return _matcher(pattern).match(_text(have)) is not None


@functools.lru_cache(MAX_FILTERS)
def _matcher(pattern: str) -> re.Pattern[str]:
    escaped = "".join(f"[{char}]" if char in "*?[" else char for char in pattern)
    return re.compile(fnmatch.translate(escaped.replace("%", "*")))


def _contains(have: Any, want: Any) -> bool:
    return _text(want) in _text(have)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(have: Any, want: Any) -> bool:
        try:
            return test(have, want)
        except TypeError:
            return False

    return compare


OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda have, want: bool(have == want),
    "ne": lambda have, want: bool(have != want),
    "like": _like,
    "ilike": _like,
    "contains": _contains,
    "gt": _compare(operator.gt),
    "gte": _compare(operator.ge),
    "lt": _compare(operator.lt),
    "lte": _compare(operator.le),
    "in": lambda have, want: isinstance(want, list) and have in want,
}
_OF_TEXT: Final = (_like, _contains)
_ALIASES: Final = {
    "=": "eq",
    "==": "eq",
    "!=": "ne",
    "neq": "ne",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
}


def chooser(query: ListQuery, fields: Sequence[str], searched: Sequence[str]) -> Callable[[Row], bool]:
    """Whether a row is asked for.

    Args:
        fields: what a filter may name.
        searched: where a search looks that names no fields.

    Raises:
        InvalidRequest: names the filter's or the search's field, or the operator, and what it may be; or the bound.
    """
    _check_filters(query.filters or ())
    tests = [_test(f, fields) for f in query.filters or ()]
    search = query.search if isinstance(query.search, Search) else Search()
    _check_bound("search.fields", len(search.fields), MAX_SEARCH_FIELDS)
    if term := term_of(query):
        where = [_known(name, fields, "search.fields") for name in search.fields] or searched
        tests.append(lambda row: any(_found(term, row.get(name), exact=search.exact) for name in where))
    return lambda row: all(test(row) for test in tests)


def _found(term: str, have: Any, *, exact: bool) -> bool:
    return have is not None and (_text(have) == term if exact else term in _text(have))


def _test(condition: Filter, fields: Sequence[str]) -> Callable[[Row], bool]:
    name = _known(condition.field, fields, "filters.field")
    wanted = condition.operator.lower()
    compare = OPERATORS.get(_ALIASES.get(wanted, wanted))
    if compare is None:
        raise InvalidRequest(
            f"Input validation failed: filters.operator: {condition.operator!r} is unknown; "
            f"it may be {', '.join(OPERATORS)}"
        )
    value = condition.value
    if compare in _OF_TEXT:
        _check_bound("filters.value", len(_text(value)), MAX_VALUE_CHARS, "characters")
    return lambda row: row.get(name) is not None and compare(row[name], value)


def _check_filters(filters: Sequence[Filter]) -> None:
    _check_bound("filters", len(filters), MAX_FILTERS)
    values = sum(len(each.value) for each in filters if isinstance(each.value, list))
    _check_bound("filters.value", values, MAX_VALUES, "values in all filters together")


def _check_bound(where: str, count: int, most: int, what: str = "") -> None:
    if count > most:
        raise InvalidRequest(
            f"Input validation failed: {where}: {count} {what}".rstrip() + f" are too many; at most {most}"
        )


def _known(name: str, fields: Sequence[str], where: str) -> str:
    if name not in fields:
        raise InvalidRequest(
            f"Input validation failed: {where}: {name!r} is unknown; it may be {', '.join(fields)}"
        )
    return name


def query_of(parameters: Mapping[str, Any]) -> ListQuery:
    """The same from a query string, where `filters` is JSON and `search` a text or JSON.

    Raises:
        InvalidRequest: says which is wrong.
    """
    given: dict[str, Any] = {k: parameters[k] for k in ("cursor", "direction", "limit") if k in parameters}
    for name in ("filters", "search"):
        text = str(parameters.get(name, ""))
        if name == "search" and not text.startswith("{"):
            given[name] = text
        elif text:
            given[name] = _json(name, text)
    try:
        return msgspec.convert(given, ListQuery, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Input validation failed: {error}") from error


def _json(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"Input validation failed: {name}: {error}") from error


def cursor_of(place: Place) -> str:
    """A place as clients carry it."""
    return base64.urlsafe_b64encode(f"{place[0]}.{place[1]}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """The place that a cursor names.

    Raises:
        InvalidRequest: it is none of ours.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created_ms, _, record_id = text.partition(".")
        return int(created_ms), record_id
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            f"Input validation failed: cursor: {cursor!r} is not a cursor of this list; leave it out to begin"
        ) from error


async def read_page(
    query: ListQuery,
    beyond: Callable[[Place | None, int, bool], Awaitable[tuple[Sequence[T], bool]]],
    place: Callable[[T], Place],
    wanted: Callable[[Sequence[T]], Awaitable[Sequence[T]]],
    *,
    batch: int = SCAN_BATCH,
) -> Page[T]:
    """Collect one page.

    Args:
        batch: how many records are read at a time.
        beyond: records beyond a place (None: from the end), at most so many, nearest first, newer ones if True;
            and whether more may follow.
        place: where a record stands.
        wanted: those of some records that the list shows, in their order.
    """
    limit = max(1, min(query.limit or DEFAULT_LIMIT, MAX_LIMIT))
    newer = query.direction == "prev" and bool(query.cursor)
    at = place_of(query.cursor) if query.cursor else None
    found: list[T] = []
    scanned, more = 0, True
    while len(found) <= limit and more and scanned < SCAN_LIMIT:
        records, more = await beyond(at, batch, newer)
        scanned += batch
        found += await wanted(records)
        at = place(records[-1]) if records else at
    return _cut(found, limit, at, newer=newer, more=more, began=bool(query.cursor), place=place)


def _cut(
    found: list[T],
    limit: int,
    at: Place | None,
    *,
    newer: bool,
    more: bool,
    began: bool,
    place: Callable[[T], Place],
) -> Page[T]:
    """The page of what was found, and the cursors of its neighbours."""
    items = found[:limit]
    onward = place(items[-1]) if len(found) > limit else at if more else None
    back = place(items[0]) if items and began else None
    onward_cursor = cursor_of(onward) if onward else ""
    back_cursor = cursor_of(back) if back else ""
    if newer:
        return Page(items[::-1], limit, next_cursor=back_cursor, prev_cursor=onward_cursor)
    return Page(items, limit, next_cursor=onward_cursor, prev_cursor=back_cursor)
