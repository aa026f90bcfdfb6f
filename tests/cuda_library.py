"""Builds the stand-in for the CUDA driver's library (tests/cuda); other processes find it by LD_LIBRARY_PATH."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "cuda" / "libcuda.c"


def built(folder, *flags):
    library = folder / "libcuda.so.1"
    subprocess.run(["gcc", *flags, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library
