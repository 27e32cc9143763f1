"""Telling that memory ran out: every library says it with an error of its own."""

import errno

import torch

# torch's allocators, C++'s, OpenCV's, the system's
_TEXTS = (
    *("can't allocate memory", "unable to allocate shared memory", "bad_alloc"),
    *("Insufficient memory", "Cannot allocate memory"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of numpy, torch (CPU and GPU), OpenCV or the system means that memory is out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return any(text in str(error) for text in _TEXTS)
