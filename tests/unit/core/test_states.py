import pytest

from stoker.core.states import ALLOWED, ON_ENGINE, TERMINAL, lua_table, may_move
from stoker.core.states import TaskState as S

pytestmark = pytest.mark.unit


def test_every_state_has_a_row():
    assert set(ALLOWED) == set(S)


def test_nothing_leaves_a_terminal_state():
    assert {S.COMPLETED, S.FAILED, S.CANCELLED} == TERMINAL
    assert not any(may_move(end, state) for end in TERMINAL for state in S)


def test_a_task_on_an_engine_can_be_queued_again_and_can_end():
    assert all({S.QUEUED, S.FAILED, S.CANCELLED} <= ALLOWED[state] for state in ON_ENGINE)


def test_only_a_task_that_ran_can_complete():
    assert {state for state in S if may_move(state, S.COMPLETED)} == {S.RUNNING, S.UPLOADING}


def test_the_lua_table_says_the_same():
    text = lua_table()
    assert '["9"]={}' in text
    assert '["2"]={["3"]=true,["10"]=true,["11"]=true}' in text


@pytest.mark.parametrize(("state", "name"), [(S.SETTING_UP, "setting_up"), (S.COMPLETED, "completed")])
def test_wire_names_are_lower_case(state, name):
    assert state.wire_name == name
