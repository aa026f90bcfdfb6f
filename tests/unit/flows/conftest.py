"""Fixtures of the tests of flows."""

import pytest

from stoker.flows import evaluator
from stoker.flows.evaluator_child import answer


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Expressions are evaluated in this process; tests/system/test_evaluator.py has the helper."""
    monkeypatch.setattr(evaluator.Evaluator, "_ask", lambda _, __, request: answer(request))
