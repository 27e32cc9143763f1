"""On a CUDA device: the losses, the steps and the detections of the CPU. Skipped where there is none."""

import copy

import pytest
import torch

from detkit.engine.schedule import build_optimizer
from detkit.engine.step import Precision, Stepper
from detkit.models.faster_rcnn import FasterRCNN
from detkit.types import Batch, Target
from tests.tiny_detector import picture, target, tiny_detector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Samplers that take every anchor and every proposal, as the two devices draw different random numbers.
TAKES_ALL = {
    "rpn__samples": 100_000,
    "rpn__positive_fraction": 1.0,
    "roi_head__samples": 100_000,
    "roi_head__positive_fraction": 1.0,
}


def detector() -> FasterRCNN:
    return tiny_detector(backbone__norm="frozen", **TAKES_ALL)


def batch() -> Batch:
    """Pictures of two sizes, one of them without objects."""
    sizes = ((64, 96), (80, 48))
    targets: list[Target] = [target((5, 6, 30, 28), (20, 20, 60, 50)), target()]
    metas = [{"image_id": i, "file_name": "", "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    return Batch([picture(*size, seed=i) for i, size in enumerate(sizes)], targets, metas)  # type: ignore[arg-type]


def losses(model: FasterRCNN, device: str, precision: Precision = "float32") -> list[dict[str, float]]:
    model = copy.deepcopy(model).to(device).train()
    stepper = Stepper(model, build_optimizer(model, "sgd", 1e-3, 1e-4), torch.device(device), precision)
    return [stepper.step([batch()], number).losses for number in (1, 2, 3)]


def test_three_steps_are_those_of_the_cpu() -> None:
    for on_cpu, on_gpu in zip(losses(detector(), "cpu"), losses(detector(), "cuda"), strict=True):
        assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_near(precision: Precision) -> None:
    first = losses(detector(), "cuda", precision)[0]
    assert first == pytest.approx(losses(detector(), "cpu")[0], rel=0.05)


def test_detections_are_those_of_the_cpu() -> None:
    model, images = detector().eval(), batch().images
    on_cpu = model.predict(images)
    on_gpu = copy.deepcopy(model).cuda().predict([image.cuda() for image in images])
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert torch.equal(a["labels"], b["labels"].cpu())
        torch.testing.assert_close(a["boxes"], b["boxes"].cpu(), rtol=0, atol=0.05)
        torch.testing.assert_close(a["scores"], b["scores"].cpu(), rtol=0, atol=1e-4)


def test_the_optimizer_is_the_fused_one() -> None:
    assert build_optimizer(detector().cuda(), "sgd", 1e-3, 1e-4).defaults["fused"]


def test_maps_stay_in_channels_last_memory() -> None:
    model = detector().cuda()
    for level in model.features([image.cuda() for image in batch().images]):
        assert level.is_contiguous(memory_format=torch.channels_last)
