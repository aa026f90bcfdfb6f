import pytest

from stoker.core import errors

pytestmark = pytest.mark.unit


def catalogue(base=errors.StokerError):
    yield base
    for child in base.__subclasses__():
        yield from catalogue(child)


def test_every_error_says_something_without_being_told():
    assert all(str(make(cls)) for cls in catalogue() if cls.__module__ == errors.__name__)


def make(cls):
    return cls("NOT_LEADER") if cls is errors.ProtocolRefusal else cls()


def test_the_words_of_the_public_contract_stand():
    assert str(errors.Unauthorized()) == "Invalid API key"
    assert str(errors.AppFailed()) == "Task failed"


def test_only_server_faults_have_a_server_status():
    assert {c.__name__ for c in catalogue(errors.CallerError) if c.http >= 500} == set()


def test_fields_are_kept_for_the_log():
    assert errors.NotFound("App not found", name="x").fields == {"name": "x"}
