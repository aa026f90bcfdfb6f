"""Packing: the same content has the same id, links stay within the repository, and every problem is told."""

import os
import socket
import subprocess

import pytest

from stoker.bundles import DEFAULT_LIMITS, BadBundle, Limits, inspect, unpack
from stoker_cli.packing import list_files, pack


def make(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def packed(tmp_path_factory):
    """A function that packs into a folder of its own."""
    return lambda folder: pack(folder, tmp_path_factory.mktemp("bundles"))


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return [name for name, _ in list_files(folder).files]


def problems(folder, limits=DEFAULT_LIMITS):
    return {problem.name: problem.text for problem in list_files(folder, limits).problems}


def test_what_is_packed_comes_out_again(tmp_path, packed):
    files = {"inf.yml": "name: x", "inference.py": "", "sub/data.txt": "ü", "ü/" + "long" * 40: "1"}
    app = make(tmp_path / "app", files)
    (app / "run.sh").write_text("")
    (app / "run.sh").chmod(0o700)
    bundle, version_id = packed(app)
    assert unpack(bundle, tmp_path / "out") == version_id
    assert tree(tmp_path / "out") == files | {"run.sh": ""}
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert len(version_id) == 64


def test_reading_a_bundle_gives_the_id_of_its_packing(tmp_path, packed):
    bundle, version_id = packed(
        make(tmp_path / "app", {"inf.yml": "name: x", "b/c": "1" * 300_000, "b.c": ""})
    )
    contents = inspect(bundle, texts=("inf.yml", "missing"))
    assert contents.version_id == version_id
    assert contents.texts == {"inf.yml": b"name: x"}
    assert contents.size == 300_007


def test_times_do_not_matter_and_content_does(tmp_path, packed):
    app = make(tmp_path / "app", {"a": "1", "b": "2"})
    bundle, first = packed(app)
    os.utime(app / "a", (1, 1))
    again, second = packed(app)
    assert (first, bundle.read_bytes()) == (second, again.read_bytes())
    for change in ({"a": "2"}, {"c": ""}):
        make(app, change)
        _, now = packed(app)
        assert now != second
        second = now
    (app / "a").chmod(0o755)
    assert packed(app)[1] != second


def test_links_are_followed(tmp_path, packed):
    make(tmp_path, {"shared/helper.py": "h", "app/inference.py": ""})
    (tmp_path / "app/helper.py").symlink_to("../shared/helper.py")
    (tmp_path / "app/folder").symlink_to(tmp_path / "shared")
    bundle, _ = packed(tmp_path / "app")
    unpack(bundle, tmp_path / "out")
    assert tree(tmp_path / "out") == {"inference.py": "", "helper.py": "h", "folder/helper.py": "h"}


def test_links_reach_as_far_as_the_repository(tmp_path):
    make(tmp_path, {"repo/top.py": "t", "repo/group/app/inference.py": "", "private/key": "k"})
    app = tmp_path / "repo/group/app"
    (app / "top.py").symlink_to("../../top.py")
    assert "outside of" in problems(app)["top.py"]  # without a repository: the folder above, no further
    (tmp_path / "repo/.git").mkdir()
    assert names(app) == ["inference.py", "top.py"]
    (app / "key").symlink_to(tmp_path / "private/key")
    (app / "all").symlink_to(tmp_path / "private")
    assert set(problems(app)) == {"key", "all"}
    with pytest.raises(BadBundle, match="outside of"):
        pack(app, tmp_path)


def test_every_problem_is_told_at_once(tmp_path):
    app = make(tmp_path / "app", {"inference.py": "", "sub/x": ""})
    (app / "gone").symlink_to("nowhere")
    (app / "sub/circle").symlink_to(app)
    (app / "a").symlink_to("b")
    (app / "b").symlink_to("a")
    os.mkfifo(app / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(app, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/socket")  # a path of its own may be too long for a socket
        os.close(folder)
    (app / "device").symlink_to("/dev/null")
    found = problems(app)
    assert set(found) == {"gone", "sub/circle", "a", "b", "pipe", "socket", "device"}
    assert found["gone"] == "a link to 'nowhere', which does not exist"
    assert "contains it" in found["sub/circle"]
    assert "cannot be followed" in found["a"]
    assert "named pipe" in found["pipe"]
    assert "socket" in found["socket"]
    with pytest.raises(BadBundle, match=r"nowhere.*named pipe"):
        pack(app, tmp_path)


def test_a_name_that_is_no_text_is_a_problem(tmp_path):
    app = make(tmp_path / "app", {"inference.py": ""})
    (tmp_path / "app" / os.fsdecode(b"bad\xff")).write_text("")
    assert "UTF-8" in next(iter(problems(app).values()))


def test_too_much_is_a_problem(tmp_path):
    app = make(tmp_path / "app", {"a": "123", "b": "456"})
    assert "max_app_bytes" in problems(app, Limits(max_bytes=5))["."]
    assert "1 files" in problems(app, Limits(max_files=1))["."]
    assert not problems(app, Limits(max_bytes=6, max_files=2))


def test_caches_and_what_the_app_ignores_stay_out(tmp_path):
    app = make(
        tmp_path / "app",
        {
            "inference.py": "",
            "__pycache__/x.pyc": "",
            ".git/config": "",
            ".venv/bin/python": "",
            ".env": "KEY=1",
            "weights/a.bin": "",
            "keep.log": "",
            "drop.log": "",
            "sub/drop.log": "",
            "top/x": "",
            "sub/top/x": "",
            "a/b/c.bin": "",
            "[x].txt": "",
            ".infshignore": "# comment\nweights/\n*.log\n!keep.log\n/top\na/**/*.bin\n\\[x].txt\n",
        },
    )
    assert names(app) == [".infshignore", "inference.py", "keep.log", "sub/top/x"]


def test_git_agrees_on_what_is_ignored(tmp_path):
    rules = "*.log\n!keep.log\n/only-top\nfolder/\n**/deep/*.bin\nmiddle/*/end\nv[0-9].txt\n!v1.txt\n"
    files = [
        "a.log",
        "keep.log",
        "x/keep.log",
        "only-top",
        "x/only-top",
        "folder/y",
        "x/folder/y",
        "deep/z.bin",
        "x/deep/z.bin",
        "middle/1/end",
        "middle/1/2/end",
        "v1.txt",
        "v2.txt",
        "x/v2.txt",
    ]
    app = make(tmp_path / "app", dict.fromkeys(files, "") | {".infshignore": rules, ".gitignore": rules})
    subprocess.run(["git", "init", "-q"], cwd=app, check=True)
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    told = subprocess.run(command, cwd=app, check=True, capture_output=True, text=True).stdout
    assert names(app) == sorted(told.split())
