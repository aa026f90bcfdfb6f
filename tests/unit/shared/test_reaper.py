"""Who reaps orphans, and who need not."""

from stoker import reaper


async def test_a_process_that_adopts_nobody_looks_for_nothing(monkeypatch):
    monkeypatch.setattr(reaper, "adopts", lambda: False)
    monkeypatch.setattr(reaper, "reap", None)
    await reaper.reap_orphans()


def test_what_has_ended_is_reaped_at_the_second_look(monkeypatch):
    ended, reaped = {(5, 100), (6, 100)}, []
    monkeypatch.setattr(reaper, "_ended_children", lambda: frozenset(ended))
    monkeypatch.setattr(reaper.os, "waitid", lambda _kind, pid, _options: reaped.append(pid))
    before = reaper.reap(frozenset())
    assert not reaped
    ended -= {(6, 100)}  # its owner waited for it, and another process has its number now
    ended |= {(6, 101)}
    assert reaper.reap(before) == {(6, 101)}
    assert reaped == [5]
