"""Outcomes on disk."""

import stat

from recorders import DONE, order

from stoker_worker.spool import Spool


def test_what_is_put_is_loaded_oldest_first(tmp_path):
    spool = Spool(tmp_path / "spool")
    for task_id in ("b", "a", "c"):
        assert spool.put(order(task_id), DONE)
    assert [spooled.order.task.id for spooled in Spool(tmp_path / "spool").load()] == ["b", "a", "c"]


def test_attempts_of_one_task_are_apart(tmp_path):
    spool = Spool(tmp_path)
    spool.put(order(attempt=1), DONE)
    spool.put(order(attempt=2), DONE)
    spool.remove(order(attempt=1))
    assert [spooled.order.attempt for spooled in spool.load()] == [2]


def test_tokens_are_for_the_user_alone(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.put(order(), DONE)
    (file,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_the_spool_is_bounded_and_counts_what_it_drops(tmp_path):
    spool = Spool(tmp_path, max_files=2)
    for number in range(5):
        spool.put(order(f"t{number}"), DONE)
    assert [spooled.order.task.id for spooled in spool.load()] == ["t3", "t4"]
    assert spool.dropped == 3


def test_bytes_are_bounded_but_the_newest_stays(tmp_path):
    spool = Spool(tmp_path, max_bytes=1)
    spool.put(order("a"), DONE)
    spool.put(order("b"), DONE)
    assert [spooled.order.task.id for spooled in spool.load()] == ["b"]


def test_a_broken_file_is_removed_and_the_others_are_loaded(tmp_path):
    spool = Spool(tmp_path)
    spool.put(order(), DONE)
    (tmp_path / "x.1.outcome").write_bytes(b"{")
    assert [spooled.order.task.id for spooled in spool.load()] == ["t1"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_takes_nothing_is_no_crash(tmp_path):
    (tmp_path / "file").write_text("")
    assert not Spool(tmp_path / "file" / "spool").put(order(), DONE)


def test_removing_what_is_not_there_is_fine(tmp_path):
    Spool(tmp_path / "none").remove(order())
    assert Spool(tmp_path / "none").load() == []
