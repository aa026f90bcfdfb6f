"""What the helper that evaluates expressions answers, without its process."""

import socket

import msgspec
import pytest

from stoker.flows import evaluator, evaluator_child
from stoker.flows.cel import ExpressionFailed
from stoker.flows.evaluator_child import Request, answer, packed, receive
from stoker.flows.expressions import evaluate


def asked(expression, **values):
    return answer(msgspec.json.encode(Request(expression, values)))


@pytest.mark.parametrize(
    ("value", "kind"), [(1.0, float), (1, int), (2**63, int), (1e300, float), (True, bool), ("ü", str)]
)
def test_numbers_keep_their_type_on_the_way(value, kind):
    found = evaluate("value", {"value": value})
    assert (found, type(found)) == (value, kind)


def test_a_result_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(evaluator_child, "MAX_RESULT_BYTES", 100)
    assert bytes(asked("text", text="x" * 98).value) == b'"' + b"x" * 98 + b'"'
    assert "gives 101 bytes; 100 are allowed" in asked("text", text="x" * 99).error


def test_values_that_are_too_large_are_not_sent(monkeypatch):
    monkeypatch.setattr(evaluator, "MAX_REQUEST_BYTES", 100)
    with pytest.raises(ExpressionFailed, match="100 are allowed"):
        evaluate("1", {"text": "x" * 100})


def test_values_that_are_no_json_are_told():
    with pytest.raises(ExpressionFailed, match="no JSON"):
        evaluate("text", {"text": "\ud800"})


def test_an_error_says_why_within_a_bound(monkeypatch):
    assert "'1 / 0'" in asked("1 / 0").error
    monkeypatch.setattr(evaluator_child, "MAX_ERROR_CHARS", 10)
    assert len(asked("missing").error) == 10


def test_a_message_has_its_length_before_it_and_an_end():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(packed(b"") + packed(b"one") + packed(b"two")[:-1])
        assert (receive(ours), receive(ours)) == (b"", b"one")
        with pytest.raises(EOFError):
            receive(ours)


def test_a_message_that_does_not_come_has_a_deadline():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        receive(ours, deadline=0.0)
