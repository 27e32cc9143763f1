"""A classifier as the training loop wants it: pictures and targets in, a dict of losses out.

B pictures of H x W px, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkit.types import Target


class ClassifierTraining(nn.Module):
    """A net that maps normalised pictures (B, 3, H, W) to logits (B, K), with its losses around it.

    In training mode the net may return (logits, auxiliary logits ...); it then has an `auxiliary_weight`. The state
    dict is the net's own, with its own names, so that a checkpoint of the training is one of the net.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        classifier: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.classifier, self.label_smoothing = classifier, label_smoothing
        # auxiliary classifiers exist to be trained: a weight of their paper is the net's own business
        self.auxiliary_weight = float(getattr(classifier, "auxiliary_weight", 0.0))
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Losses: `loss_class`, and `loss_auxiliary_1`, ... times the net's weight; float32 scalars.

        Pictures (3, H, W) of one size, uint8 or float32 in 0..255; the class is the first label of each target.
        """
        labels = torch.stack([target["labels"][0] for target in targets])
        outputs = self.classifier(self._normalised(images))
        logits, auxiliary = (outputs, ()) if isinstance(outputs, Tensor) else (outputs[0], outputs[1:])
        losses = {"loss_class": self._loss(logits, labels)}
        for number, other in enumerate(auxiliary, start=1):
            losses[f"loss_auxiliary_{number}"] = self.auxiliary_weight * self._loss(other, labels)
        return losses

    def predict(self, images: list[Tensor]) -> Tensor:
        """Logits (B, K), float32; in eval mode."""
        return self.classifier(self._normalised(images)).float()

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """The net's."""
        return self.classifier.state_dict(*arguments, **options)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """The net's."""
        return self.classifier.load_state_dict(state_dict, strict, assign)

    def _normalised(self, images: list[Tensor]) -> Tensor:
        pictures = torch.stack(images).to(self.pixel_mean.dtype)
        return ((pictures - self.pixel_mean) / self.pixel_std).contiguous(memory_format=torch.channels_last)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy with the label smoothed (Szegedy et al., Rethinking the Inception Architecture, section 7)."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
