"""Builds the package without any tool: one module, which holds the variable that is set while it is built."""

import os
import zipfile
from pathlib import Path

VERSION = "1"


def get_requires_for_build_editable(config_settings=None):
    return []


def build_editable(folder, config_settings=None, metadata_directory=None):
    info = f"trapped-{VERSION}.dist-info"
    name = f"trapped-{VERSION}-py3-none-any.whl"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        wheel.writestr("trapped.py", f"VERSION = {VERSION!r}\nWORD = {os.environ['TRAP_WORD']!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: trapped\nVersion: {VERSION}\n")
        wheel.writestr(f"{info}/WHEEL", kind)
        wheel.writestr(f"{info}/RECORD", "trapped.py,,\n")
    return name
