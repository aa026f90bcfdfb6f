"""Which errors say that GPU memory ran out, by the words of the libraries that say it."""

import pytest

from stoker_worker.runner.shortage import is_short, says_so

SAID = [
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.69 GiB of which 9.81 MiB is free.",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "cudaErrorMemoryAllocation: out of memory",
    "[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory",
    "unable to allocate: failed to allocate CUDA0 buffer of size 4294967296",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes.",
    "OOM when allocating tensor with shape[64,512] and type float on /job:localhost/replica:0/task:0/device:GPU:0",
    "Free memory on device (3.1/23.6 GiB) on startup is less than desired GPU memory utilization (0.9, 21.3 GiB).",
]
NOT_SAID = [
    "",
    "out of memory",
    "Unable to allocate 12.0 GiB for an array with shape (1000, 1000)",
    "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory",
    "OOM when allocating tensor with shape[64,512] on /job:localhost/replica:0/task:0/device:CPU:0",
    "CUDA error: device-side assert triggered",
]


def error_of(name, text, module="torch"):
    return type(name, (RuntimeError,), {"__module__": module})(text)


@pytest.mark.parametrize("text", SAID)
def test_it_is_known_by_its_words(text):
    assert says_so(text)
    assert is_short(RuntimeError(text))


@pytest.mark.parametrize("text", NOT_SAID)
def test_other_shortages_are_none_of_gpu_memory(text):
    assert not says_so(text)
    assert not is_short(MemoryError(text))


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (error_of("OutOfMemoryError", "no words that anybody knows"), True),
        (error_of("OutOfMemoryError", "Out of memory allocating 8,000 bytes", "cupy.cuda.memory"), True),
        (error_of("ResourceExhaustedError", "failed on GPU:0", "tensorflow.errors"), True),
        (error_of("ResourceExhaustedError", "too many requests", "google.api"), False),
    ],
)
def test_it_is_known_by_the_name_of_its_class(error, short):
    assert is_short(error) is short


def test_it_is_known_through_what_an_app_makes_of_it():
    for link in ("__cause__", "__context__"):
        error = ValueError("the picture could not be made")
        setattr(error, link, error_of("OutOfMemoryError", "x"))
        assert is_short(error)


def test_errors_that_came_from_one_another_in_a_ring_end():
    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert not is_short(one)


def test_an_error_without_words_is_none():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert not is_short(Mute())
