"""Scores of a classifier: top-1 and top-5 accuracy, and the cross entropy. B pictures, K classes."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detkit.types import Batch


def topk_correct(logits: Tensor, labels: Tensor, k: int) -> int:
    """Of how many pictures the label is among the k best of the logits (B, K); all, where K <= k.

    Among equal logits the label comes last, so that a net which says the same of all classes is not right by chance.
    """
    own = logits.gather(1, labels[:, None])
    # not above: also counts what is not a number
    above = (~(logits < own)).sum(1) - 1
    return int((above < k).sum())


@torch.no_grad()
def evaluate_classifier(
    predict: Callable[[list[Tensor]], Tensor],
    batches: Iterable[Batch],
    progress: Callable[[int], None] | None = None,
    total: Callable[[Sequence[float]], Sequence[float]] = tuple,
) -> dict[str, float]:
    """`top1`, `top5` (shares of the pictures) and `val_loss`, the mean cross entropy without label smoothing.

    `predict` maps the pictures of a batch to logits (B, K). `progress` is called with the number of pictures done.
    `total` adds up over the processes that share the pictures. Raises ValueError when there are no pictures.
    """
    count, right_1, right_5, loss = 0.0, 0.0, 0.0, 0.0
    for batch in batches:
        logits = predict(batch.images).float().cpu()
        labels = torch.stack([target["labels"][0] for target in batch.targets]).cpu()
        right_1 += topk_correct(logits, labels, 1)
        right_5 += topk_correct(logits, labels, 5)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        count += len(batch.images)
        if progress is not None:
            progress(len(batch.images))
    count, right_1, right_5, loss = total((count, right_1, right_5, loss))
    if count == 0:
        raise ValueError("there are no pictures to evaluate on")
    return {"top1": right_1 / count, "top5": right_5 / count, "val_loss": loss / count}
