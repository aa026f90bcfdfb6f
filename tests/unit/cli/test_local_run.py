"""Where `stoker apps test` puts the files of an output."""

import asyncio
import tempfile
from pathlib import Path

import pytest

from stoker_cli import local_run
from stoker_cli.local_run import LocalRun, _keep_files
from stoker_worker.instance import OutFile, RunResult
from stoker_worker.outcomes import LoadTimeout

pytestmark = pytest.mark.unit


@pytest.fixture
def made(tmp_path):
    """The output of an app: two files of one name."""
    files = []
    for number in range(2):
        path = tmp_path / "work" / str(number) / "out.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"new {number}")
        files.append(
            OutFile(
                pointer=f"/{number}", path=str(path), content_type="text/plain", filename="out.txt", size=5
            )
        )
    return RunResult(output=["", ""], files=files)


def run_of(folder, save):
    return LocalRun(
        folder=folder,
        input={},
        setup={},
        function="",
        env={},
        save=save,
        on_state=lambda _state: None,
        on_line=lambda _kind, _text: None,
    )


def test_without_a_folder_each_run_has_a_new_one_of_a_name_that_nobody_knows(tmp_path, monkeypatch, made):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "stoker-output-app"
    theirs.mkdir()
    folders = {
        Path(path).parent for _ in range(2) for path in _keep_files(made, run_of(Path("app"), None), [])
    }
    assert len(folders) == 2
    for folder in folders:
        assert folder.name.startswith("stoker-output-app-")
        assert folder.stat().st_mode & 0o077 == 0
    assert list(theirs.iterdir()) == []


def test_no_folder_is_made_when_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert _keep_files(RunResult(output={}, files=[]), run_of(Path("app"), None), []) == {}
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_overwritten_and_no_link_is_followed(tmp_path, made):
    save, elsewhere = tmp_path / "save", tmp_path / "elsewhere"
    save.mkdir()
    (save / "out.txt").symlink_to(elsewhere)
    (save / "0-out.txt").write_text("old")
    (save / "1-out.txt").write_text("old")
    kept = []
    output = _keep_files(made, run_of(tmp_path, save), kept)
    assert output == kept == [str(save / "2-out.txt"), str(save / "3-out.txt")]
    assert [Path(path).read_text() for path in kept] == ["new 0", "new 1"]
    assert (save / "1-out.txt").read_text() == "old"
    assert not elsewhere.exists()


async def test_an_app_that_is_not_imported_in_time_is_told_with_the_limit(monkeypatch):
    monkeypatch.setattr(local_run, "IMPORT_TIMEOUT_S", 0)
    with pytest.raises(LoadTimeout, match="was not imported within 0 s"):
        async with local_run._in_time():
            await asyncio.Event().wait()
