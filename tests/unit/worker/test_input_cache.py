"""Fetched files that are kept: whole or not at all, by last use, never under a run's feet."""

import os
import threading

import pytest

from stoker_worker.input_cache import Entry, InputCache, Stopped, copy_bytes


def cache(tmp_path, max_bytes=1000):
    made = InputCache(tmp_path / "inputs", max_bytes)
    made.open()
    return made


def keep(kept_in, key, data, **fields):
    part = kept_in.new_part(key)
    part.write_bytes(data)
    return kept_in.keep(key, part, Entry(data=part.name, size=len(data), **fields))


def used(kept_in, key, at_s):
    os.utime(kept_in._folder / f"{key}.json", (at_s, at_s))


def read(kept_in, entry, target):
    kept_in.copy(entry, target, threading.Event())
    return target.read_bytes()


def test_a_file_is_found_again_with_what_is_known_of_it(tmp_path):
    made = cache(tmp_path)
    keep(made, "k", b"bytes", content_type="image/png", etag='"1"')
    entry = made.find("k")
    assert (entry.size, entry.content_type, entry.etag) == (5, "image/png", '"1"')
    assert read(made, entry, tmp_path / "copy") == b"bytes"
    assert made.find("other") is None


def test_only_its_owner_can_read_the_directory(tmp_path):
    assert cache(tmp_path)._folder.stat().st_mode & 0o777 == 0o700


def test_a_run_has_a_copy_that_it_may_change(tmp_path):
    made = cache(tmp_path)
    entry = keep(made, "k", b"bytes")
    copy = tmp_path / "copy"
    read(made, entry, copy)
    copy.write_bytes(b"other")
    assert read(made, made.find("k"), tmp_path / "second") == b"bytes"


def test_a_newer_file_replaces_the_older_one_of_its_key(tmp_path):
    made = cache(tmp_path)
    keep(made, "k", b"old")
    keep(made, "k", b"newer")
    assert read(made, made.find("k"), tmp_path / "copy") == b"newer"
    assert len(list(made._folder.glob("*.data"))) == 1


def test_those_not_used_for_longest_go_first(tmp_path):
    made = cache(tmp_path, 1000)
    for number in range(4):
        keep(made, f"k{number}", b"x" * 240)
    for key, at_s in {"k0": 400, "k1": 100, "k2": 200, "k3": 300}.items():
        used(made, key, at_s)
    made.find("k1")  # used now
    keep(made, "k4", b"x" * 240)
    assert [key for key in ("k0", "k1", "k2", "k3", "k4") if made.find(key)] == ["k0", "k1", "k4"]
    assert sum(path.stat().st_size for path in made._folder.glob("*.data")) <= 1000


def test_an_eviction_takes_nothing_from_who_copies_or_has_copied(tmp_path):
    made = cache(tmp_path, 1000)
    entry = keep(made, "k0", b"x" * 240)
    copy = tmp_path / "copy"
    read(made, entry, copy)
    used(made, "k0", 1)
    for number in range(1, 6):
        keep(made, f"k{number}", b"y" * 240)
    assert made.find("k0") is None
    assert copy.read_bytes() == b"x" * 240
    with pytest.raises(FileNotFoundError):
        made.copy(entry, tmp_path / "late", threading.Event())


def test_a_file_that_would_push_out_all_others_is_not_kept(tmp_path):
    made = cache(tmp_path, 1000)
    assert made.takes(250)
    assert not made.takes(251)
    assert not cache(tmp_path, 0).takes(1)


def test_an_entry_whose_data_is_not_as_it_was_does_not_count(tmp_path):
    made = cache(tmp_path)
    entry = keep(made, "k", b"bytes")
    (made._folder / entry.data).write_bytes(b"truncated by a crash")
    assert made.find("k") is None
    (made._folder / entry.data).unlink()
    assert made.find("k") is None
    (made._folder / "k.json").write_bytes(b"{")
    assert made.find("k") is None


def test_leftovers_of_a_crash_go_when_they_are_old(tmp_path):
    made = cache(tmp_path)
    entry = keep(made, "k", b"bytes")
    old, new = made.new_part("a"), made.new_part("b")
    for path in (old, new, made._folder / "orphan.data"):
        path.write_bytes(b"x")
    for path in (old, made._folder / "orphan.data", made._folder / entry.data):
        os.utime(path, (1, 1))
    made.open()
    assert sorted(path.name for path in made._folder.iterdir()) == sorted([entry.data, "k.json", new.name])


def test_a_copy_ends_when_it_is_told_to(tmp_path):
    made = cache(tmp_path)
    entry = keep(made, "k", b"bytes")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        made.copy(entry, tmp_path / "copy", stop)


def test_a_file_system_that_cannot_copy_by_itself_is_copied_by_hand(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    (tmp_path / "a").write_bytes(b"bytes")
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as target:
        copy_bytes(source, target, 5, threading.Event())
    assert (tmp_path / "b").read_bytes() == b"bytes"


def test_an_entry_is_fresh_for_its_time_after_it_was_checked():
    entry = Entry(data="d", size=1, checked_ms=1_000, fresh_s=60)
    assert entry.fresh(1_000)
    assert entry.fresh(60_999)
    assert not entry.fresh(61_000)
    assert not entry.fresh(999)  # a clock that was put back
