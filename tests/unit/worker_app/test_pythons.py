"""Which Python an app gets."""

import sys

import pytest

from stoker_worker import pythons
from stoker_worker.pythons import PythonMissing, UnknownKernel, find_python, version_of


@pytest.mark.parametrize(
    ("kernel", "version"),
    [
        ("python-3.11", "3.11"),
        ("python-3.12", "3.12"),
        ("python3.10", "3.10"),
        ("3.10", "3.10"),
        ("3.12.4", "3.12"),
        ("", "3.11"),
        (" ", "3.11"),
    ],
)
def test_kernels_name_a_version(kernel, version):
    assert version_of(kernel) == version


@pytest.mark.parametrize("kernel", ["node-22", "python-2.7", "python-3"])
def test_other_kernels_are_told(kernel):
    with pytest.raises(UnknownKernel, match=kernel):
        version_of(kernel)


def test_our_own_version_is_always_there():
    assert find_python(f"{sys.version_info.major}.{sys.version_info.minor}").exists()


def make(path):
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_path_comes_before_pyenv_and_shims_do_not_count(tmp_path, monkeypatch):
    make(tmp_path / "shims" / "python3.9")
    newer = make(tmp_path / "pyenv/versions/3.9.18/bin/python3.9")
    make(tmp_path / "pyenv/versions/3.9.2/bin/python3.9")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    assert find_python("3.9") == newer
    first = make(tmp_path / "bin" / "python3.9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}:{tmp_path / 'bin'}")
    assert find_python("3.9") == first


def test_a_missing_version_names_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(pythons, "find_on_path", lambda version: tmp_path if version == "3.12" else None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(PythonMissing, match=r"Python 3\.9, .*found: .*3\.12"):
        find_python("3.9")
