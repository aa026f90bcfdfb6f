"""Bundles: the same content has the same id, and nothing gets out of the folder."""

import io
import os
import tarfile

import pytest

from stoker_worker.bundles import BadBundle, is_ignored, pack, unpack


def make(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def packed():
    """A function that packs, and removes the bundle at the end."""
    bundles = []

    def do(folder):
        bundle, version_id = pack(folder)
        bundles.append(bundle)
        return bundle, version_id

    yield do
    for bundle in bundles:
        bundle.unlink()


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_packed_comes_out_again(tmp_path, packed):
    files = {"inf.yml": "name: x", "inference.py": "", "sub/data.txt": "ü"}
    app = make(tmp_path / "app", files)
    (app / "run.sh").write_text("")
    (app / "run.sh").chmod(0o700)
    bundle, version_id = packed(app)
    unpack(bundle, tmp_path / "out")
    assert tree(tmp_path / "out") == files | {"run.sh": ""}
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert len(version_id) == 64


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


def test_links_that_lead_nowhere_or_in_circles_are_told(tmp_path):
    app = make(tmp_path / "app", {"inference.py": ""})
    (app / "gone").symlink_to("nowhere")
    with pytest.raises(BadBundle, match="does not exist"):
        pack(app)
    (app / "gone").unlink()
    (app / "circle").symlink_to(app)
    with pytest.raises(BadBundle, match="contains it"):
        pack(app)


def test_caches_and_what_the_app_ignores_stay_out(tmp_path, packed):
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
            ".infshignore": "# comment\nweights/\n*.log\n!keep.log\n",
        },
    )
    unpack(packed(app)[0], tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == [".infshignore", "inference.py", "keep.log"]


@pytest.mark.parametrize(
    ("name", "pattern", "ignored"),
    [
        ("a.log", "*.log", True),
        ("sub/a.log", "*.log", True),
        ("sub/a.log", "/*.log", False),
        ("sub/a.log", "sub/*.log", True),
        ("data", "data/", False),
        ("a/b/c.bin", "**/*.bin", True),
        ("c.bin", "**/*.bin", True),
        ("a/b/c.bin", "a/**", True),
        ("a+b.txt", "a+b.txt", True),
        ("v1.txt", "v[0-9].txt", True),
        ("vx.txt", "v[!0-9].txt", True),
        ("[x.txt", "[x.txt", True),
    ],
)
def test_patterns_are_like_those_of_git(name, pattern, ignored):
    assert is_ignored(name, (pattern,), is_dir=False) is ignored


def bundle_with(path, name, kind=tarfile.REGTYPE, target=""):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
        archive.addfile(entry, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../evil", tarfile.REGTYPE, ""),
        ("/etc/evil", tarfile.REGTYPE, ""),
        ("a/../../evil", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("link", tarfile.LNKTYPE, "/etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
    ],
)
def test_a_harmful_bundle_is_refused(tmp_path, name, kind, target):
    bundle = bundle_with(tmp_path / "b.tar.gz", name, kind, target)
    with pytest.raises(BadBundle):
        unpack(bundle, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_bundle_is_told(tmp_path, packed):
    bundle, _ = packed(make(tmp_path / "app", {"a": "x" * 1000}))
    for number, data in enumerate((b"", b"no gzip", bundle.read_bytes()[:-20])):
        bad = tmp_path / "bad.tar.gz"
        bad.write_bytes(data)
        with pytest.raises(BadBundle, match="cannot be unpacked"):
            unpack(bad, tmp_path / f"out{number}")
