"""Losses of a whole split."""

from collections.abc import Mapping, Sequence

from torch import Tensor


class LossMeans:
    """Means over the pictures of a split of losses that are means over the pictures of a batch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.pictures = 0

    def add(self, losses: Mapping[str, Tensor], pictures: int) -> None:
        """Take in the losses of a batch of so many pictures."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * pictures
        self.pictures += pictures

    def metrics(self) -> dict[str, float]:
        """The means as `val_NAME`, and `val_loss`, their sum; empty without pictures."""
        means = {f"val_{name}": total / self.pictures for name, total in self.sums.items()}
        return {"val_loss": sum(means.values()), **means} if means else {}


def joined_means(parts: Sequence[tuple[Mapping[str, float], int]]) -> LossMeans:
    """The means of a split that several processes share, from each one's `sums` and `pictures`."""
    joined = LossMeans()
    for sums, pictures in parts:
        for name, total in sums.items():
            joined.sums[name] = joined.sums.get(name, 0.0) + total
        joined.pictures += pictures
    return joined
