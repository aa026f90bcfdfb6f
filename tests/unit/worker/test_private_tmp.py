"""Who must wait where apps share /tmp, and which apps those are."""

import asyncio
from pathlib import Path

import pytest
from helpers import PATIENCE_S

from stoker_worker.private_tmp import KEPT, PrivateTmp, names_tmp, paths_to_keep

MODELS, OTHER = "/tmp/models", "/var/tmp/b"  # noqa: S108 - the folders in question
pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path = '/tmp/out.png'", True),
        ('run(f"ffmpeg -i {x} /var/tmp/out.mp4")', True),
        ("run('convert a.png >/tmp/out.png')", True),
        ("path = os.path.join('/tmp', name)", True),
        ("path = f'{base}/tmp/x'", False),
        ("path = os.path.join(tempfile.gettempdir(), 'out')", False),
        ("path = 'models/tmp/x'", False),
        ("# see https://example.org/tmp/x", False),
    ],
)
def test_code_that_names_tmp_is_found(tmp_path, code, found):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "helper.py").write_text(code)
    (tmp_path / "notes.txt").write_text("'/tmp/x'")
    assert names_tmp(tmp_path) is found


def test_what_the_environment_names_below_tmp_is_kept():
    environ = {"HF_HOME": MODELS, "TMPDIR": f"{MODELS}/own", "A": f"/data:{OTHER}", "TEXT": f"see {MODELS}"}
    assert paths_to_keep(environ) == (*KEPT, Path(MODELS), Path(OTHER))


async def test_apps_that_share_names_take_turns():
    tmp = PrivateTmp("refused")
    steps = []

    async def use(name):
        async with tmp.turn(shares=True, on_wait=lambda: steps.append(f"{name} waits")):
            steps.append(f"{name} in")
            await asyncio.sleep(0)
            steps.append(f"{name} out")

    await asyncio.gather(use("a"), use("b"))
    assert steps == ["a in", "b waits", "a out", "b in", "b out"]


async def test_other_apps_wait_for_nobody():
    tmp = PrivateTmp("refused")
    async with (
        tmp.turn(shares=True, on_wait=list),
        asyncio.timeout(PATIENCE_S),
        tmp.turn(shares=False, on_wait=list),
    ):
        pass
