"""A /tmp of its own for each process, and what becomes of the files in it. The interpreter is this one."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from instances import LIMIT_S, OWN_TMP, is_gone, needs_own_tmp

from stoker_worker import private_tmp
from stoker_worker.instance_spec import RUNNER
from stoker_worker.private_tmp import NoPrivateTmp

FIXED = "/tmp/stoker-test-output.txt"  # noqa: S108 - the name that apps share


def content_of(path):
    return Path(path).read_text() if Path(path).exists() else None


@needs_own_tmp
async def test_two_processes_write_the_same_name_at_once(start, tmp_path):
    one, two = [await start("temporary", setup={"word": word}, keep=(tmp_path,)) for word in ("one", "two")]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    results = await asyncio.gather(
        one.run({"do": "meet", "mine": first, "theirs": second}),
        two.run({"do": "meet", "mine": second, "theirs": first}),
    )
    assert [result.output["read"] for result in results] == ["one", "two"]
    assert [content_of(result.files[0].path) for result in results] == ["one", "two"]
    assert [result.files[0].named for result in results] == [FIXED, FIXED]
    assert content_of(FIXED) is None


@needs_own_tmp
async def test_a_run_finds_tmp_as_the_first_one_did(start):
    app = await start("temporary", setup={"word": "again"})
    for _ in range(3):
        result = await app.run({"do": "refuse"})
        assert content_of(result.files[0].path) == "again"
        app.instance.tidy()


@needs_own_tmp
async def test_what_is_in_use_or_was_there_before_stays(start):
    app = await start("temporary")
    # What the process needs of the shared one; a clone of the project may lie there too.
    needed = [str(Path(*path.parts[:3])) for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix))]
    but = {"but": ["/tmp/pytest", "/tmp/stoker-app", *needed]}  # noqa: S108
    before = await app.do("list", **but)
    assert before == ["/tmp/of-setup", "/tmp/of-setup/weights"]  # noqa: S108
    folder = await app.do("leave")
    kept = sorted([*before, "/tmp/opened", "/tmp/socket", folder, f"{folder}/cached"])  # noqa: S108
    assert await app.do("list", **but) == kept
    await app.do("close")
    kept.remove("/tmp/opened")  # noqa: S108 - closed, so nobody needs it
    assert await app.do("list", **but) == kept


@pytest.mark.parametrize("own_tmp", [pytest.param(True, marks=needs_own_tmp), False])
async def test_a_daemon_that_an_app_left_ends_with_it(start, own_tmp):
    app = await start("temporary", own_tmp=own_tmp)
    child = await app.do("daemon")
    await app.instance.stop("enough")
    assert await is_gone(child)


@needs_own_tmp
async def test_a_daemon_that_an_app_left_ends_with_the_worker(start):
    app = await start("temporary")
    child = await app.do("daemon")
    app.instance._link.close()  # as when the worker is killed
    assert await is_gone(child)
    assert await is_gone(app.instance.pid)


async def test_an_instance_says_why_it_shares_tmp(start):
    shared = await start("temporary", own_tmp=False)
    assert shared.instance.shared_because == "it is switched off"
    if OWN_TMP.returncode == 0:
        private = await start("temporary")
        assert private.instance.shared_because == ""


@needs_own_tmp
async def test_an_app_folder_and_links_below_tmp_stay_visible(start, tmp_path):
    app_dir = tmp_path / "app"
    app_dir.mkdir()
    (app_dir / "inference.py").write_text(
        "import os\n\nclass App:\n    def run(self, given):\n        return [os.getcwd(), open(given['path']).read()]\n"
    )
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "file").write_text("content")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "inputs")
    app = await start(app_dir, keep=(link,))
    assert (await app.run({"path": str(link / "file")})).output == [str(app_dir), "content"]


async def test_the_setting_decides(monkeypatch):
    async def refused():
        return "unshare: Operation not permitted"

    monkeypatch.setattr(private_tmp, "probe", refused)
    assert (await private_tmp.find_out("auto")).refusal == "unshare: Operation not permitted"
    assert "off" in (await private_tmp.find_out("off")).refusal
    with pytest.raises(NoPrivateTmp, match="Operation not permitted"):
        await private_tmp.find_out("require")


PROGRAM = f"""
import ctypes, os, signal, sys
sys.path.insert(0, sys.argv[1])
import own_tmp
isolation = own_tmp.isolate(sys.argv[2], [sys.argv[1], sys.prefix])
libc = ctypes.CDLL(None)
libc.prctl(1, signal.SIGKILL)
found = ctypes.c_int()
libc.prctl(2, ctypes.byref(found))
rights = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
open("{FIXED}", "x").close()
print(found.value, rights[0], os.getuid(), os.stat("{FIXED}").st_uid, isolation.outside("{FIXED}"))
"""


@needs_own_tmp
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_gets_one_too(tmp_path):
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("needs an interpreter that every user can read")
    folder = Path("/dev/shm") / f"stoker-test-{os.getpid()}"  # noqa: S108 - every user can go there
    try:
        (folder / "work").mkdir(parents=True)
        (folder / "own_tmp.py").write_text((RUNNER / "own_tmp.py").read_text())
        os.chown(folder / "work", 65534, 65534)
        done = subprocess.run(
            [python, "-I", "-c", PROGRAM, str(folder), str(folder / "work")],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if "unshare" in done.stderr:
            pytest.skip(f"user namespaces are refused here: {done.stderr[-200:]}")
        death, rights, uid, owner, path = done.stdout.split()
        assert (death, int(rights, 16), uid, owner) == ("9", 0, "65534", "65534")
        assert path == str(folder / "work" / "tmp" / Path(FIXED).name)
        assert Path(path).exists()
        assert content_of(FIXED) is None
    finally:
        shutil.rmtree(folder)


ANOTHER = """
import ctypes, os
user = 0 if os.geteuid() == 0 else 0x10000000
assert ctypes.CDLL(None).unshare(0x00020000 | user) == 0
print(os.readlink("/proc/self/ns/mnt"))
"""


@needs_own_tmp
async def test_no_other_process_gets_the_number_of_a_namespace_whose_strays_are_ended(start, monkeypatch):
    numbers = []

    def meanwhile(namespace, _tmp):
        numbers.append(namespace)
        for _ in range(5):
            done = subprocess.run([sys.executable, "-c", ANOTHER], capture_output=True, text=True, check=True)
            numbers.append(done.stdout.strip())
        return 0

    monkeypatch.setattr("stoker_worker.instance.end_strays", meanwhile)
    app = await start("temporary")
    await app.instance.stop("enough")
    own, *others = numbers
    assert own.startswith("mnt:")
    assert own not in others
