"""Processes that an app left behind. They are real ones: what is tested is what the kernel tells of them."""

import subprocess

import pytest

from stoker_worker.strays import _is_marked, end_strays

LIMIT_S = 30.0
LOOKS = 10_000
"""One in some dozens meets the moment in which a process that goes from program to program has no environment."""


@pytest.fixture
def begin():
    """Starts programs with this environment alone, `programs` of them one after the other in the same process."""
    begun = []

    def begin(programs=1, **environment):
        command = [*["env"] * (programs - 1), "sleep", "infinity"]
        begun.append(subprocess.Popen(command, env=environment))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait(LIMIT_S)


def test_no_look_denies_the_mark_of_a_process_that_begins_a_program_just_now(begin, tmp_path):
    stray, variable = (
        begin(programs=5_000, FILE_CACHE_DIR=str(tmp_path)),
        f"FILE_CACHE_DIR={tmp_path}".encode(),
    )
    looks = {_is_marked(stray.pid, "", variable) for _ in range(LOOKS)}
    assert True in looks
    assert False not in looks


def test_a_stray_ends_though_it_begins_a_program_just_now(begin, tmp_path):
    for _ in range(20):
        stray = begin(programs=500, FILE_CACHE_DIR=str(tmp_path))
        assert end_strays("", str(tmp_path)) == 1
        assert stray.wait(LIMIT_S) == -9


def test_what_has_no_mark_or_no_environment_lives_on(begin, tmp_path):
    other = f"{tmp_path}/other"
    others = [begin(FILE_CACHE_DIR=other), begin(OTHER=f"FILE_CACHE_DIR={tmp_path}"), begin()]
    assert end_strays("", str(tmp_path)) == 0
    assert [process.poll() for process in others] == [None, None, None]
