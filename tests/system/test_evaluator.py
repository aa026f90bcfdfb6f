"""The process that evaluates expressions: what it may take, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from helpers import alive, environment, wait_gone, wait_until

from stoker.core.errors import StokerError
from stoker.flows.cel import ExpressionFailed
from stoker.flows.evaluator import Evaluator

ENDLESS = (
    "(l + l + l + l).all(a, (l + l + l + l).all(b, (l + l + l + l).all(c, (l + l + l + l).all(d, true))))"
)
LIST = {"l": list(range(200))}
PARENT = f"""
import sys, threading
from stoker.flows.evaluator import shared
shared.evaluate("1", {{}})
print(shared.pid, flush=True)
if sys.argv[1] == "busy":
    shared.evaluate({ENDLESS!r}, {LIST!r})
threading.Event().wait()
"""


def doubled(times):
    """An expression that puts a text together from itself, and is short and flat."""
    return "a" if not times else f"({doubled(times - 1)} + {doubled(times - 1)})"


@pytest.fixture
def evaluator():
    made = Evaluator(limit_s=30)
    yield made
    made.close()


def test_an_expression_without_an_end_is_killed_and_the_next_one_works(evaluator):
    assert evaluator.evaluate("1 + a", {"a": 1}) == 2
    first, evaluator._limit_s = evaluator.pid, 0.3
    with pytest.raises(ExpressionFailed, match=r"took longer than 0\.3 s; let an app compute it"):
        evaluator.evaluate(ENDLESS, LIST)
    assert not psutil.pid_exists(first)  # reaped too
    evaluator._limit_s = 30
    assert evaluator.evaluate("1 + 1", {}) == 2
    assert evaluator.pid != first


def test_a_result_that_grew_too_large_is_refused_and_its_helper_is_kept(evaluator):
    with pytest.raises(ExpressionFailed, match=r"are allowed\. Let an app compute it"):
        evaluator.evaluate(doubled(7), {"a": "x" * 100_000})
    first = evaluator.pid
    assert evaluator.evaluate("a", {"a": [1.0, 1]}) == [1.0, 1]
    assert evaluator.pid == first


def test_an_expression_that_takes_too_much_memory_fails_alone(evaluator):
    with pytest.raises(ExpressionFailed, match="bytes of memory"):
        evaluator.evaluate(f"size({doubled(8)})", {"a": "x" * 8_000_000})
    assert evaluator.evaluate("1 + 1", {}) == 2


def test_a_helper_that_had_much_memory_is_replaced(evaluator):
    assert evaluator.evaluate(f"size({doubled(6)})", {"a": "x" * 4_000_000}) == 256_000_000
    assert evaluator.pid is None


def test_a_large_parent_makes_no_worn_helper():
    code = """
from stoker.flows.evaluator import shared
held = b"x" * 400_000_000
assert shared.evaluate("1", {}) == 1
first = shared.pid
assert shared.evaluate("2", {}) == 2
assert first and shared.pid == first, (first, shared.pid)
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=True)


def test_a_helper_that_ended_while_idle_fails_nothing(evaluator):
    evaluator.evaluate("1", {})
    os.kill(evaluator.pid, signal.SIGKILL)
    wait_gone({evaluator.pid})
    assert evaluator.evaluate("2", {}) == 2


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_a_helper_that_does_not_start_is_no_fault_of_the_expression(evaluator, monkeypatch, program):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", program)
        with pytest.raises(StokerError, match="did not start"):
            evaluator.evaluate("1", {})
    assert evaluator.evaluate("1", {}) == 1


def test_it_inherits_nothing_and_leaves_the_signals_of_its_group_alone(evaluator, monkeypatch):
    monkeypatch.setenv("STOKER_SECRET", "s")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    evaluator.evaluate("1", {})
    assert evaluator.pid  # psutil takes None for this process
    helper = psutil.Process(evaluator.pid)
    assert "STOKER_SECRET" not in helper.environ()
    os.close(write)
    assert os.read(read, 1) == b""  # nobody else has the other end
    os.close(read)
    helper.terminate()
    helper.send_signal(signal.SIGINT)
    assert evaluator.evaluate("2", {}) == 2
    assert helper.is_running()


@pytest.mark.parametrize("state", ["idle", pytest.param("busy", marks=pytest.mark.long)])
def test_it_ends_when_its_parent_is_killed(state):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, state], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        helper = int(parent.stdout.readline())
        if state == "busy":
            before = psutil.Process(helper).cpu_times().user
            wait_until(lambda: psutil.Process(helper).cpu_times().user > before + 0.1, "work of the helper")
        assert alive(helper)
    finally:
        parent.kill()
        parent.communicate(timeout=30)
    wait_gone({helper})


def test_it_ends_with_an_interpreter_that_ends_by_itself():
    code = "from stoker.flows.evaluator import shared; shared.evaluate('1', {}); print(shared.pid)"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not ended.stderr
    wait_gone({int(ended.stdout)})


def test_threads_share_one_and_each_gets_its_own_answer(evaluator):
    starter = threading.Thread(target=evaluator.evaluate, args=("1", {}))
    starter.start()
    starter.join()  # the thread that started the helper may end
    pid = evaluator.pid
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda n: evaluator.evaluate("n * 2", {"n": n}), range(200)))
    assert found == [2 * n for n in range(200)]
    assert evaluator.pid == pid


def test_a_forked_process_has_a_helper_of_its_own():
    code = """
import os
from stoker.flows.evaluator import shared
shared.evaluate("1", {})
helper, child = shared.pid, os.fork()
if not child:
    os._exit(0 if shared.evaluate("2", {}) == 2 and shared.pid != helper else 1)
assert os.waitpid(child, 0)[1] == 0
assert shared.evaluate("3", {}) == 3 and shared.pid == helper
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=True)
