"""Builds the stand-in for the NVIDIA driver's library (tests/nvml), for this process or for others."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "nvml" / "libnvidia-ml.c"


def built(folder, *flags):
    """The library in a folder; another process finds it there by LD_LIBRARY_PATH."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", *flags, "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, SOURCE],
        check=True,
    )
    return library
