"""Large tensors in large pages of memory."""

import os


def use_large_pages() -> None:
    """Have torch ask Linux for pages of 2 MB for its large tensors, unless the environment says otherwise.

    Memory that is fresh from the system costs a fault a page, and activations are fresh in each step: with pages of
    4 KB the faults take longer than the work itself of what only moves memory (`benchmarks/README.md`). Torch reads the
    variable when it allocates its first tensor, so this is for the start of a program.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
