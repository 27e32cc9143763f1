"""Layers whose activations are not kept for the backward pass but made again there (Chen et al., Training Deep Nets
with Sublinear Memory Cost, 2016)."""

from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(run: Callable[..., Tensor], norms: nn.Module, *inputs: Tensor, random: bool = True) -> Tensor:
    """run(*inputs), of which only the inputs are kept. Batch norms in `norms` count the batch once.

    `random`: whether `run` draws random numbers, which the second pass must repeat.
    """
    contexts = (nullcontext(), KeptStatistics(norms))
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=random, context_fn=lambda: contexts)


class KeptStatistics:
    """While it is entered all norms in a module write to copies of their statistics.

    A second pass must not count its batch twice. Reusable, because a graph that is retained makes its second pass again
    with each backward.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
        self.kept: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [(norm, *entry) for norm in self.norms for entry in norm.named_buffers(recurse=False)]
        for norm, name, buffer in self.kept:
            setattr(norm, name, buffer.clone())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm, name, buffer in self.kept:
            setattr(norm, name, buffer)
