import pytest

from stoker.core.states import TERMINAL
from stoker.core.states import TaskState as S
from stoker_gateway.dialect import Deltas, Dialect, Numbering, decide, ending_statuses, status_number

OLD, NEW = Numbering.OLD, Numbering.NEW
PY = {"user-agent": "inference-sdk-py/0.36.0", "accept": "*/*"}
LINES, EVENTS = {"accept": "application/x-ndjson"}, {"accept": "text/event-stream"}
OLD_STREAM = {
    "user-agent": "python-requests/2.34.2",
    "accept": "text/event-stream",
    "cache-control": "no-cache",
    "accept-encoding": "identity",
    "content-type": "application/json",
}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-api-version": "2", **PY}, Dialect(numbering=NEW, bare=True, ndjson=True, reconciles=True)),
        ({"x-api-version": "2", **EVENTS}, Dialect(numbering=NEW, bare=True)),
        ({"x-api-version": "2", **LINES}, Dialect(numbering=NEW, bare=True, ndjson=True)),
        (PY, Dialect(numbering=NEW, ndjson=True, reconciles=True, deltas=Deltas.CHAT)),
        ({"user-agent": "inference-sdk-py/0.12.9"}, Dialect(numbering=NEW, ndjson=True, reconciles=True)),
        ({"user-agent": "inference-sdk-py/0.36.0", **EVENTS}, Dialect(numbering=NEW, reconciles=True)),
        ({"user-agent": "inference-sdk-py/0.7.6"}, Dialect(numbering=NEW, ndjson=True)),
        ({"user-agent": "inference-sdk-py/0.6.27", **LINES}, Dialect(numbering=NEW, ndjson=True)),
        (
            {"x-client-source": "inference-sdk-js/0.5.13", **LINES},
            Dialect(numbering=NEW, ndjson=True, deltas=Deltas.BESIDE),
        ),
        ({"x-client-source": "inference-sdk-js/0.5.13", **EVENTS}, Dialect(numbering=NEW)),
        (LINES, Dialect(numbering=NEW, ndjson=True)),
        ({"accept": "application/jsonl"}, Dialect(numbering=NEW, ndjson=True)),
        (OLD_STREAM, Dialect(double_ending=True)),
        (OLD_STREAM | {"user-agent": "Python/3.11 aiohttp/3.14.5"}, Dialect(double_ending=True)),
        ({"user-agent": "curl/8.14.1", "accept": "*/*"}, Dialect()),
        (EVENTS, Dialect()),
        ({}, Dialect()),
    ],
)
def test_the_first_row_that_fits_decides(headers, expected):
    assert decide(headers) == expected


@pytest.mark.parametrize("name", [n for n in OLD_STREAM if n != "user-agent"])
def test_the_old_stream_is_recognised_by_all_of_its_headers_only(name):
    assert not decide({k: v for k, v in OLD_STREAM.items() if k != name}).double_ending


@pytest.mark.parametrize("wish", [{"prefix_v2": True}, {"key_numbering": "v2"}])
def test_an_unnamed_client_may_choose_the_newer_numbers(wish):
    assert decide(OLD_STREAM, **wish) == Dialect(numbering=NEW)


def test_a_key_may_ask_for_the_documented_numbers():
    assert decide(OLD_STREAM, key_numbering="v1") == Dialect(numbering=OLD)


@pytest.mark.parametrize(
    ("state", "old", "new"),
    [(S.RUNNING, 7, 7), (S.UPLOADING, 8, 9), (S.COMPLETED, 9, 10), (S.FAILED, 10, 11), (S.CANCELLED, 11, 12)],
)
def test_the_last_states_have_two_numbers(state, old, new):
    assert status_number(state, Dialect(numbering=OLD)) == old
    assert status_number(state, Dialect(numbering=NEW)) == new


def test_cancelling_exists_in_the_newer_numbers_alone():
    assert status_number(S.RUNNING, Dialect(numbering=NEW), cancel_requested=True) == 8
    assert status_number(S.RUNNING, Dialect(numbering=OLD), cancel_requested=True) == 7
    assert status_number(S.COMPLETED, Dialect(numbering=NEW), cancel_requested=True) == 10


def test_the_double_ending_has_a_number_for_each_generation():
    both = Dialect(double_ending=True)
    assert {s: ending_statuses(s, both) for s in sorted(TERMINAL)} == {
        S.COMPLETED: (9, 10),
        S.FAILED: ("failed", 10),
        S.CANCELLED: (12, 11),
    }
    assert ending_statuses(S.COMPLETED, Dialect()) == (9,)
