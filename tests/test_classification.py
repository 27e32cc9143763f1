"""Classifiers: scores and losses by hand, crops, folders and what is wrong with them, batches, optimizer, schedules."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detkit.data.classification import AreaCrop, CentreCrop, ClassificationDataset, SideCrop, cut
from detkit.data.folders import load_folders
from detkit.data.loader import EpochLoader
from detkit.data.transforms import build_transform
from detkit.engine.ema import build_ema, ema_state
from detkit.engine.schedule import build_optimizer
from detkit.evaluation.classification import evaluate_classifier, topk_correct
from detkit.models.classification import ClassifierTraining
from detkit.types import Batch, Target
from tests.object_crops import cut_objects
from tests.test_schedule import learning_rates

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def targets(*labels: int) -> list[Target]:
    return [{"boxes": torch.tensor([[0.0, 0, 2, 2]]), "labels": torch.tensor([label])} for label in labels]


def black(count: int) -> list[Tensor]:
    return [torch.zeros(3, 2, 2, dtype=torch.uint8) for _ in range(count)]


class Says(nn.Module):
    """Says the same whatever it sees; with auxiliary classifiers in training mode."""

    auxiliary_weight = 0.3

    def __init__(self, logits: list[list[float]], *auxiliary: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.auxiliary = [torch.tensor(rows) for rows in auxiliary]
        self.seen = torch.empty(0)

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, ...]:
        self.seen = pictures
        return (self.logits, *self.auxiliary) if self.auxiliary and self.training else self.logits


def test_top_k_by_hand() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]])
    labels = torch.tensor([0, 4, 5])  # the best, the fifth, the sixth
    assert [topk_correct(logits, labels, k) for k in (1, 4, 5, 6)] == [1, 1, 2, 3]


def test_a_net_that_says_the_same_of_all_classes_or_nan_is_not_right() -> None:
    assert topk_correct(torch.zeros(2, 6), torch.tensor([0, 5]), 5) == 0
    assert topk_correct(torch.full((1, 6), math.nan), torch.tensor([0]), 1) == 0
    assert topk_correct(torch.tensor([[1.0, math.nan, 0]]), torch.tensor([0]), 1) == 0


def test_the_evaluation_counts_pictures_not_batches() -> None:
    net = Says([[2.0, 1, 0, 0, 0, 0]])
    batches = [Batch(black(3), targets(0, 0, 1), []), Batch(black(1), targets(1), [])]
    done: list[int] = []
    metrics = evaluate_classifier(lambda images: net(images).expand(len(images), -1), batches, done.append)
    assert metrics["top1"] == 2 / 4
    assert metrics["top5"] == 1.0
    total = math.log(math.exp(2) + math.exp(1) + 4)
    assert metrics["val_loss"] == pytest.approx((2 * (total - 2) + 2 * (total - 1)) / 4)
    assert done == [3, 1]
    with pytest.raises(ValueError, match="no pictures"):
        evaluate_classifier(lambda images: net(images), [])


def test_label_smoothing_by_hand() -> None:
    # two classes, logits (ln 3, 0): probabilities 3/4 and 1/4; the label has 0.95 and the other class 0.05
    training = ClassifierTraining(Says([[math.log(3), 0.0]]), MEAN, STD, label_smoothing=0.1)
    loss = training(black(1), targets(0))["loss_class"]
    assert loss.item() == pytest.approx(-0.95 * math.log(3 / 4) - 0.05 * math.log(1 / 4))
    plain = ClassifierTraining(Says([[math.log(3), 0.0]]), MEAN, STD)(black(1), targets(0))
    assert list(plain) == ["loss_class"]
    assert plain["loss_class"].item() == pytest.approx(-math.log(3 / 4))


def test_auxiliary_losses_are_weighted_and_only_in_training() -> None:
    net = Says([[math.log(3), 0.0]], [[0.0, 0.0]], [[0.0, math.log(3)]])
    training = ClassifierTraining(net, MEAN, STD)
    losses = training(black(1), targets(0))
    expected = {
        "loss_class": -math.log(3 / 4),
        "loss_auxiliary_1": 0.3 * math.log(2),
        "loss_auxiliary_2": -0.3 * math.log(1 / 4),
    }
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected)
    assert list(training.eval()(black(1), targets(0))) == ["loss_class"]
    assert torch.equal(training.predict(black(1)), net.logits)


def test_pictures_are_normalised_in_the_model_and_the_names_are_the_nets_own() -> None:
    net = Says([[1.0, 0.0]])
    training = ClassifierTraining(net, (10.0, 20.0, 30.0), (2.0, 4.0, 5.0)).to(memory_format=torch.channels_last)
    training([torch.full((3, 4, 4), 50, dtype=torch.uint8)], targets(0))
    assert net.seen[0, :, 0, 0].tolist() == [20.0, 7.5, 4.0]
    assert net.seen.is_contiguous(memory_format=torch.channels_last)
    assert list(training.state_dict()) == ["logits"]
    ema = build_ema(training, 0.9)
    ema.update_parameters(training)
    assert list(ema_state(ema)[0]) == ["logits"]
    training.load_state_dict({"logits": torch.tensor([[5.0, 6.0]])})
    assert net.logits.tolist() == [[5.0, 6.0]]
    with pytest.raises(RuntimeError, match="Unexpected"):
        training.load_state_dict({"logits": torch.zeros(1, 2), "classifier.logits": torch.zeros(1, 2)})


def test_rmsprop_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = build_optimizer(model, "rmsprop", 0.1, weight_decay=0.0, momentum=0.5, alpha=0.9, eps=1.0)
    square, buffer, weight = 0.0, 0.0, 1.0
    for gradient in (2.0, -1.0, 3.0):
        optimizer.zero_grad()
        (model.weight * gradient).sum().backward()
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient**2
        buffer = 0.5 * buffer + gradient / (math.sqrt(square) + 1.0)
        weight -= 0.1 * buffer
        assert model.weight.item() == pytest.approx(weight)


def test_nesterov_looks_ahead() -> None:
    weights = []
    for nesterov in (False, True):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 1.0)
        optimizer = build_optimizer(model, "sgd", 0.1, weight_decay=0.0, momentum=0.9, nesterov=nesterov)
        model.weight.sum().backward()
        optimizer.step()
        weights.append(model.weight.item())
    assert weights == pytest.approx([1 - 0.1 * 1, 1 - 0.1 * 1.9])


def test_exponential_and_linear_schedules() -> None:
    assert learning_rates("exponential", 6, gamma=0.5, decay_steps=2) == pytest.approx(
        [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]
    )
    warmed = learning_rates("exponential", 6, gamma=0.5, decay_steps=2, warmup_steps=2, warmup_factor=0.5)
    assert warmed == pytest.approx([0.5, 0.75, 1, 1, 0.5, 0.5, 0.25])
    assert learning_rates("linear", 4) == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-7)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (500, 40), (33, 33)])
def test_crops_lie_inside_and_area_crops_have_the_area_and_shape_asked_for(size: tuple[int, int]) -> None:
    height, width = size
    rng = np.random.default_rng(0)
    for crop in (AreaCrop(), AreaCrop((0.5, 0.5), (1.0, 1.0)), SideCrop(32, (40, 64)), CentreCrop(32, 40)):
        for _ in range(50):
            x, y, w, h = crop(height, width, rng)
            assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height and w > 0 and h > 0
    for _ in range(50):
        _, _, w, h = AreaCrop((0.1, 0.4))(60, 90, rng)
        assert 0.09 < w * h / 5400 < 0.42
        assert 0.7 < w / h < 1.4


def test_side_crops_by_hand() -> None:
    rng = np.random.default_rng(0)
    # the short side, 100 px, becomes 256: 224 of it are 87.5 px of the picture as it is
    boxes = {SideCrop(224, (256, 256))(100, 150, rng) for _ in range(200)}
    assert {(w, h) for _, _, w, h in boxes} == {(88, 88)}
    assert {y for _, y, _, _ in boxes} == set(range(13))
    assert min(x for x, *_ in boxes) <= 2 and max(x for x, *_ in boxes) >= 60
    assert CentreCrop(224, 256)(100, 150, rng) == (31, 6, 88, 88)
    assert CentreCrop(64, 64)(50, 80, rng) == (15, 0, 50, 50)


def test_cutting_averages_where_it_shrinks() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:2, 2:4] = [[[0], [100]], [[100], [200]]]
    assert cut(picture, (2, 0, 2, 2), 1)[0, 0].tolist() == [100, 100, 100]
    assert np.array_equal(cut(picture, (1, 0, 4, 4), 4), picture[:, 1:5])
    assert cut(picture, (0, 0, 6, 4), 8).shape == (8, 8, 3)


def paint(root: Path, names: tuple[str, ...], size: tuple[int, int] = (40, 50)) -> Path:
    """Pictures of noise at the given places below root."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        assert cv2.imwrite(str(path), noise)
    return root


NAMES = tuple(f"train/{name}/{number}.png" for name in ("ant", "bee", "cow") for number in range(4))
VAL = ("val/bee/x.png", "val/cow/deeper/y.png")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return paint(tmp_path / "set", (*NAMES, *VAL))


def test_folders_are_classes_and_those_of_validation_are_matched_by_name(folders: Path) -> None:
    (folders / "train" / "notes.txt").write_text("not a class")
    (folders / "train" / ".cache").mkdir()
    train = load_folders(folders, "train")
    assert train.classes == ("ant", "bee", "cow")
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert train.path(5) == folders / "train" / "bee" / "1.png"
    val = load_folders(folders, "val", train.classes)
    assert [val.file_name(i) for i in range(2)] == ["bee/x.png", "cow/deeper/y.png"]
    assert val.labels.tolist() == [1, 2]
    limited = load_folders(folders, "train", limit=6)
    assert limited.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert limited.fingerprint() != train.fingerprint() == load_folders(folders, "train").fingerprint()


def test_wrong_layouts_say_what_was_expected_and_found(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected .*nowhere/train/<class>/\*\.jpg.* there is no folder"):
        load_folders(tmp_path / "nowhere", "train")
    with pytest.raises(ValueError, match=r"expected .*/training/<class>.*, but .* has train, val"):
        load_folders(folders, "training")
    paint(folders, ("flat/1.png", "flat/2.png", "one/ant/1.png", "more/bee/1.png", "more/dog/1.png"))
    with pytest.raises(ValueError, match=r"has no folders, only 1\.png, 2\.png"):
        load_folders(folders, "flat")
    with pytest.raises(ValueError, match="the single class 'ant'"):
        load_folders(folders, "one")
    with pytest.raises(ValueError, match="no classes of the training split: dog; its classes are ant, bee, cow"):
        load_folders(folders, "more", ("ant", "bee", "cow"))
    (folders / "train" / "elk").mkdir()
    with pytest.raises(ValueError, match=r"elk has no pictures \(\.jpg"):
        load_folders(folders, "train")


def loader(folders: Path, workers: int = 0, **settings: bool) -> EpochLoader[ClassificationDataset]:
    index = load_folders(folders, "train")
    dataset = ClassificationDataset(index, 36, AreaCrop(), build_transform(0.5, 0.0, 0.5, 0.0), seed=3)
    return EpochLoader(dataset, 5, shuffle=True, seed=3, workers=workers, group_by_aspect=False, **settings)


def test_batches_are_the_same_with_workers_and_from_the_middle(folders: Path) -> None:
    def flat(batches: list[Batch]) -> list[tuple[str, int, list[int]]]:
        return [
            (meta["file_name"], int(target["labels"]), image.flatten().tolist())
            for batch in batches
            for image, target, meta in zip(batch.images, batch.targets, batch.metas, strict=True)
        ]

    alone, helped = loader(folders), loader(folders, workers=2)
    first = list(alone.epoch(0))
    assert [len(batch.images) for batch in first] == [5, 5, 2]
    assert {tuple(image.shape) for batch in first for image in batch.images} == {(3, 36, 36)}
    assert flat(first) == flat(list(helped.epoch(0)))
    assert flat(first)[5:] == flat(list(alone.epoch(0, 1)))
    assert all(name.startswith(("ant", "bee", "cow")[label]) for name, label, _ in flat(first))
    again = {name: pixels for name, _, pixels in flat(list(alone.epoch(1)))}
    assert again.keys() == {name for name, _, _ in flat(first)}
    assert all(again[name] != pixels for name, _, pixels in flat(first))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_named(workers: int, folders: Path) -> None:
    (folders / "train" / "bee" / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bee/2\.png"):
        list(loader(folders, workers).epoch(0))
    lenient = loader(folders, workers, skip_unreadable=True)
    assert sum(len(batch.images) for batch in lenient.epoch(0)) == 11
    assert list(lenient.skipped) == ["bee/2.png"]


def test_real_objects_become_a_data_set(real_data: Path, tmp_path: Path) -> None:
    train = load_folders(cut_objects(real_data, tmp_path), "train")
    assert train.classes == ("WBC", "crosswalk", "person", "stop")
    assert len(train) == 8
