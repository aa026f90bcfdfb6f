"""Whether an error says that GPU memory ran out: torch, cupy, tensorflow, jax, numba, onnxruntime, llama.cpp, CUDA.

By the names of the classes, the error's own and those it came from, and by the texts. That of the machine's memory
(MemoryError, "DefaultCPUAllocator") is something else.
"""

import re

CLASSES = frozenset({"OutOfMemoryError", "ResourceExhaustedError"})
"""torch.OutOfMemoryError (torch.cuda's before 2.5), cupy.cuda.memory's, tensorflow.errors'."""
TEXT = re.compile(
    r"CUDA out of memory|HIP out of memory"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|(?:CUDA|HIP) error: out of memory"
    r"|cuda\w* failed: out of memory|failed to allocate CUDA\d* buffer"
    r"|CU(?:BLAS|DNN|SOLVER|SPARSE|FFT)_STATUS_ALLOC_FAILED"
    r"|RESOURCE_EXHAUSTED: Out of memory|OOM when allocating tensor.{0,500}/device:GPU"
    r"|Free memory on device .{0,100} is less than desired GPU memory utilization",
    re.IGNORECASE | re.DOTALL,
)
CHAIN_MAX = 16
"""Errors that came from one another, at most: a chain may be a ring."""


def is_short(error: "BaseException") -> bool:
    """Whether an error, or one that it came from, says so."""
    for _ in range(CHAIN_MAX):
        if (type(error).__name__ in CLASSES and not _of_host(error)) or says_so(_text_of(error)):
            return True
        earlier = error.__cause__ or error.__context__
        if earlier is None:
            return False
        error = earlier
    return False


def says_so(text: str) -> bool:
    """Whether a text says so; of a process that tells nothing else."""
    return TEXT.search(text) is not None


def _of_host(error: "BaseException") -> bool:
    """Tensorflow has one class for the memory of all devices, and for limits of its services."""
    return type(error).__name__ == "ResourceExhaustedError" and "GPU" not in _text_of(error)


def _text_of(error: "BaseException") -> str:
    try:
        return str(error)
    except Exception:  # an app's own class may fail at this
        return ""
