"""Stages of a backbone that are frozen at first and train from some epoch on."""

from torch import nn

from detkit.backbones.base import Backbone


class Thawing:
    """`start_epoch(epoch)` of the training loop: from epoch `at` on, counted from 1, no stage of `model` is frozen.

    Between `thaw` and the first epoch all stages train, so that an optimizer built then has all parameters: it passes
    over those without a gradient. Raises ValueError where no stage is frozen.
    """

    def __init__(self, model: nn.Module, at: int) -> None:
        self._frozen = {
            module: module.frozen_stages
            for module in model.modules()
            if isinstance(module, Backbone) and module.frozen_stages
        }
        if not self._frozen:
            raise ValueError(
                f"train.thaw_at={at}: no stage is frozen; set model.backbone.frozen_stages, or train.thaw_at=none"
            )
        self._at = at

    def thaw(self) -> None:
        """Let all stages train."""
        for backbone in self._frozen:
            backbone.freeze(0)

    def __call__(self, epoch: int) -> None:
        """Freeze or thaw for an epoch, counted from 0."""
        for backbone, stages in self._frozen.items():
            backbone.freeze(stages if epoch + 1 < self._at else 0)
