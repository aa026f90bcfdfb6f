"""GPU memory in the scheduler's decisions: learned by type of device, less what others hold, none on a lost device."""

import msgspec
import pytest
from board import Board
from scheduling import GB, engine_info, gpu_needs, resident, spec

from stoker.core.measures import Measures
from stoker.core.states import ResidentState, TaskState
from stoker.core.vram import VramState

pytestmark = pytest.mark.unit

GPU = "box-gpu-0"
LOST = "GPU 0 (GPU-0-0) is lost: NVML: GPU is lost"


def gpu_board(*, gpus=(24,), residents=(), name="box", **vram):
    return report(Board(), gpus=gpus, residents=residents, name=name, **vram)


def report(board, *, gpus=(24,), residents=(), name="box", other_gb=0.0, trouble="", gpu_name="gpu"):
    info = engine_info(name, gpus=gpus)
    [worker] = info.workers
    renamed = tuple(msgspec.structs.replace(gpu, name=gpu_name) for gpu in worker.gpus)
    worker = msgspec.structs.replace(worker, gpus=renamed)
    info = msgspec.structs.replace(info, workers=(worker,))
    state = VramState(other_bytes=int(other_gb * GB), trouble=trouble)
    return board.engine(info, residents, vram={worker.id: state})


def placed(board, key, declared_gb, **fields):
    task = board.submit(key, needs=gpu_needs(declared_gb), **fields)
    board.decide()
    return task


def test_memory_that_others_hold_is_given_to_nobody_and_the_reason_says_so():
    board = gpu_board(other_gb=12)
    task = placed(board, "a", 16)
    assert board.worker_of(task) is None
    assert board.reason_of(task) == (
        f"{GPU} has too little GPU memory: 12.0 GB of it are in use there by other programs, or not freed yet"
    )
    report(board)
    board.decide()
    assert board.worker_of(task) == GPU


def test_what_fits_beside_other_programs_is_placed():
    board = gpu_board(other_gb=12)
    assert board.worker_of(placed(board, "a", 10)) == GPU


def test_what_needs_no_gpu_memory_does_not_ask_who_has_it():
    board = gpu_board(other_gb=24, residents=[resident(GPU, "a", vram_gb=6)])
    task = board.submit("b")
    board.decide()
    assert (board.worker_of(task), board.evicted) == (GPU, [])


def test_nobody_is_evicted_in_vain_for_what_others_hold():
    board = gpu_board(other_gb=12, residents=[resident(GPU, "a", vram_gb=6)])
    placed(board, "b", 16)
    assert board.evicted == []


def test_a_model_of_the_size_of_the_device_fits_beside_its_driver():
    board = gpu_board(other_gb=0.9)
    assert board.worker_of(placed(board, "a", 24)) == GPU


def test_another_worker_is_taken_where_one_is_crowded():
    board = report(gpu_board(other_gb=12), name="other")
    assert board.worker_of(placed(board, "a", 16)) == "other-gpu-0"


def test_the_declared_number_has_a_margin_until_it_is_measured():
    for measured, evicted in ((0, ["a"]), (12, [])):
        board = gpu_board(residents=[resident(GPU, "a", vram_gb=12)])
        if measured:
            board.mirror.knowledge.learn_vram("b", measured * GB, "gpu")
        placed(board, "b", 12)
        assert board.evicted == evicted


def test_what_is_wanted_less_stays_where_another_one_alone_makes_the_room():
    board = gpu_board(residents=[resident(GPU, "small", vram_gb=4), resident(GPU, "large", vram_gb=20)])
    board.finish(board.submit("large", needs=gpu_needs(20)), TaskState.CANCELLED)
    placed(board, "a", 18)
    assert board.evicted == ["large"]


def finish(board, task, **measured):
    board.run(task)
    board.mirror.on_finished(task, TaskState.COMPLETED, Measures(run_s=1, **measured), board.now_ms)


def test_what_a_setup_takes_is_learned_on_the_type_of_its_device():
    board = gpu_board(gpu_name="L4")
    finish(board, placed(board, "a", 4), vram_bytes=15 * GB)
    knowledge = board.mirror.knowledge
    assert knowledge.vram_bytes("a", 4 * GB, "L4") == 15 * GB
    assert knowledge.vram_bytes("a", 4 * GB, "A100") == int(16.5 * GB)


def test_a_new_leader_learns_it_from_what_lives_there():
    board = gpu_board(gpu_name="L4", residents=[resident(GPU, "a", vram_gb=15)])
    assert board.mirror.knowledge.vram_bytes("a", 4 * GB, "L4") == 15 * GB


def test_a_task_whose_memory_ran_out_goes_elsewhere_or_alone():
    board = gpu_board(residents=[resident(GPU, "b", vram_gb=10)])
    first = placed(board, "a", 10)
    assert (board.worker_of(first), board.evicted) == (GPU, [])
    board.mirror.on_delayed(
        first, 1, Measures(vram_short=24 * GB, vram_bytes=9 * GB, instance_ended=True), board.now_ms
    )
    assert GPU not in board.mirror.wards
    report(board, residents=[resident(GPU, "b", vram_gb=10)])
    again = placed(board, "a", 10)
    assert board.worker_of(again) is None
    assert "handed it back" in board.reason_of(again)
    board.later(10).look_again()
    assert (board.worker_of(again), board.evicted) == (GPU, ["b"])


def test_a_worker_that_hands_back_again_and_again_is_asked_ever_more_seldom_until_its_memory_changes():
    board = gpu_board()
    task = board.submit("a", needs=gpu_needs(20))
    pauses = []
    for _ in range(9):
        board.decide()
        began_ms = board.now_ms
        board.mirror.on_requeued(spec("a", task=task, needs=gpu_needs(20)), board.now_ms)
        while board.worker_of(task) is None and len(pauses) < 8:
            board.later(5).look_again()
        pauses.append((board.now_ms - began_ms) // 1000)
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 320, 0]
    report(board, other_gb=1)
    board.decide()
    assert board.worker_of(task) == GPU
    assert not board.mirror.fleet.workers[GPU].returns


def test_what_was_to_make_room_for_a_task_that_came_back_is_warm_still():
    board = gpu_board(residents=[resident(GPU, "a", vram_gb=12)])
    task = board.mirror.queues.group_of(placed(board, "b", 20))
    assert (task, board.evicted) == (None, ["a"])
    [held] = board.mirror.fleet.workers[GPU].held
    board.mirror.on_requeued(spec("b", task=held.task_id, needs=gpu_needs(20)), board.now_ms)
    report(board, residents=[resident(GPU, "a", vram_gb=12)], other_gb=12)
    assert board.worker_of(placed(board, "a", 4)) == GPU
    assert board.cold == [(GPU, "b")]


def test_a_task_whose_memory_ran_out_goes_elsewhere_at_once():
    board = gpu_board()
    first = placed(board, "a", 10)
    board.mirror.on_delayed(first, 1, Measures(vram_short=24 * GB, instance_ended=True), board.now_ms)
    report(board, name="other")
    assert board.worker_of(placed(board, "a", 10)) == "other-gpu-0"


def test_a_worker_with_a_lost_device_gets_no_tasks_says_why_and_comes_back():
    board = gpu_board(trouble=LOST, residents=[resident(GPU, "a", ResidentState.IDLE, vram_gb=6)])
    task = placed(board, "a", 4)
    assert board.worker_of(task) is None
    assert board.reason_of(task) == (
        f"the only worker that could run this, {GPU}, is in quarantine or not available; {GPU}: {LOST}"
    )
    report(board)
    board.decide()
    assert board.worker_of(task) == GPU


def test_a_group_that_waits_for_a_worker_looks_elsewhere_when_its_device_is_lost():
    board = report(gpu_board(), name="other")
    first = placed(board, "a", 4, workers=(GPU,))
    board.run(first)
    waiting = placed(board, "a", 4)
    assert board.worker_of(waiting) in (None, "other-gpu-0")
    report(board, trouble=LOST)
    board.decide()
    board.later(60).look_again()
    assert board.worker_of(waiting) == "other-gpu-0"
