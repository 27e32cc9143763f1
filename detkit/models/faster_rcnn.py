"""Faster R-CNN (Ren et al., 2015) with FPN: the page of flow from pictures to losses or detections.

B pictures of any sizes, H x W the smallest size that holds all of them in whole multiples of `size_multiple`.
"""

import torch
from torch import Tensor, nn

from detkit.backbones.base import MIN_SIDE
from detkit.models.roi_head import RoIHead
from detkit.models.rpn import RPN
from detkit.types import Detection, Proposals, Target


class FasterRCNN(nn.Module):
    """Backbone, neck, RPN and RoI head in a row. Pictures are (3, H, W) RGB, uint8 or float32 in 0..255.

    `pixel_mean`, `pixel_std`: of the three channels, in 0..255. `size_multiple`: pictures are padded to multiples of
    it; 32 is what other libraries do, and small pictures lose much to it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPN,
        roi_head: RoIHead,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        size_multiple: int = 32,
    ) -> None:
        super().__init__()
        self.size_multiple = size_multiple
        self.backbone, self.neck, self.rpn, self.roi_head = backbone, neck, rpn, roi_head
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The four losses, whatever the mode: loss_objectness, loss_rpn_box, loss_class, loss_box (scalars)."""
        features = self.features(images)
        proposals, losses = self.rpn(features, _sizes(images), targets)
        return losses | self.roi_head(features, proposals, targets)

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[Detection]:
        """Detections of each picture, in pixels of the picture as given. Meant for eval mode."""
        return self.predict_with_proposals(images)[0]

    @torch.no_grad()
    def predict_with_proposals(
        self, images: list[Tensor], at_least: int = 0
    ) -> tuple[list[Detection], list[Proposals]]:
        """What `predict` returns, and the proposals, best first: those of the RoI head, then more up to `at_least`."""
        features, sizes = self.features(images), _sizes(images)
        proposals, _ = self.rpn(features, sizes, at_least=at_least)
        count = self.rpn.test_counts.post_nms
        seen: list[Proposals] = [{"boxes": p["boxes"][:count], "scores": p["scores"][:count]} for p in proposals]
        return self.roi_head.predict(features, seen, sizes), proposals

    @torch.no_grad()
    def predict_with_losses(
        self, images: list[Tensor], targets: list[Target]
    ) -> tuple[list[Detection], dict[str, Tensor]]:
        """What `predict` and forward return, for the cost of less than both. Meant for eval mode."""
        features, sizes = self.features(images), _sizes(images)
        proposals, _ = self.rpn(features, sizes)
        detections = self.roi_head.predict(features, proposals, sizes)
        proposals, losses = self.rpn(features, sizes, targets)
        return detections, losses | self.roi_head(features, proposals, targets)

    @torch.no_grad()
    def propose(self, images: list[Tensor]) -> list[Proposals]:
        """What the RPN alone finds, best first: for diagnosis."""
        return self.rpn(self.features(images), _sizes(images))[0]

    def features(self, images: list[Tensor]) -> list[Tensor]:
        """Levels of the neck, channels last, for pictures normalised and padded to one size."""
        return self.neck(self.backbone(self.batch(images)))

    def batch(self, images: list[Tensor]) -> Tensor:
        """Pictures normalised, then padded with zeros at the right and the bottom: (B, 3, H, W), channels last.

        Padding also brings them to the 33 px a side that backbones need.

        Raises ValueError for an empty list or a picture of another shape.
        """
        if not images:
            raise ValueError("expected at least one picture, got an empty list")
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"expected pictures of shape (3, H, W), got {tuple(image.shape)}")
        largest = torch.tensor(_sizes(images)).amax(0).clamp(min=MIN_SIDE)
        height, width = (largest.add(self.size_multiple - 1) // self.size_multiple * self.size_multiple).tolist()
        batch = torch.zeros((len(images), 3, height, width), device=self.pixel_mean.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = (image.float() - self.pixel_mean) / self.pixel_std
        return batch


def _sizes(images: list[Tensor]) -> list[tuple[int, int]]:
    return [(image.shape[1], image.shape[2]) for image in images]
