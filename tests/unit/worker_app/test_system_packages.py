"""System packages that apps name, and what is told where they are missing."""

import pytest

from stoker_worker import system_packages
from stoker_worker.system_packages import SystemPackagesMissing, check, packages_of, parse_installed


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "packages.txt").write_text(
        "# tools\n\nsh\nlibgl1:amd64 ffmpeg=7:4.4  # sound\nno-such-library\nsh\n"
    )
    return tmp_path


@pytest.fixture
def machine(monkeypatch):
    """A machine with these commands and, where it is a Debian, these packages."""

    def make(commands, installed):
        async def answer():
            return None if installed is None else frozenset(installed)

        monkeypatch.setattr(system_packages, "_installed", answer)
        monkeypatch.setattr(system_packages.shutil, "which", lambda name: name if name in commands else None)

    return make


def test_comments_blank_lines_versions_and_architectures_are_no_names(folder):
    assert packages_of(folder) == ["sh", "libgl1", "ffmpeg", "no-such-library"]


def test_an_app_without_the_file_needs_nothing(tmp_path):
    assert packages_of(tmp_path) == []


async def test_what_is_missing_is_named_with_the_command_that_installs_it(folder, machine):
    machine({"sh", "apt-get"}, {"libgl1"})
    with pytest.raises(SystemPackagesMissing) as caught:
        await check(folder, "video", ())
    assert "'video' needs the system packages ffmpeg, no-such-library (packages.txt)" in caught.value.message
    assert "apt-get install -y ffmpeg no-such-library" in caught.value.message
    assert "system_packages" in caught.value.message


@pytest.mark.parametrize("promised", [("ffmpeg", "no-such-library"), ("*",)])
async def test_what_the_operator_promises_is_there(folder, machine, promised):
    machine({"sh"}, {"libgl1"})
    assert await check(folder, "video", promised) == []


async def test_a_package_is_there_where_its_commands_are(folder, machine):
    machine({"sh", "ffmpeg", "ffprobe"}, {"libgl1", "no-such-library"})
    assert await check(folder, "video", ()) == []
    machine({"sh", "ffmpeg"}, {"libgl1", "no-such-library"})
    with pytest.raises(SystemPackagesMissing, match="ffmpeg"):
        await check(folder, "video", ())


async def test_without_dpkg_only_known_commands_are_judged(folder, machine):
    machine({"sh", "ffmpeg", "ffprobe"}, None)
    assert await check(folder, "video", ()) == ["libgl1", "no-such-library"]
    machine({"sh", "dnf"}, None)
    with pytest.raises(SystemPackagesMissing, match=r"system package ffmpeg .*dnf install -y ffmpeg"):
        await check(folder, "video", ())


def test_a_package_counts_when_it_is_installed_or_provided():
    text = "git\tinstalled\t\nold\tconfig-files\t\nlibasound2t64\tinstalled\tlibasound2 (= 1.2), other:any\n"
    assert parse_installed(text) == {"git", "libasound2t64", "libasound2", "other"}
