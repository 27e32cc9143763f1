"""Repeat-factor sampling: the paper's formula by hand, epochs of one length, copies that differ."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.data.coco import CocoIndex, load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.loader import EpochLoader
from detkit.data.sampling import repeat_factors, repeated_order
from detkit.data.transforms import build_transform
from tests.coco_files import content, write


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    factors = np.array([1.0, 2.5, 1.0, 1.25])
    assert repeated_order(factors, 3, 7) == repeated_order(factors, 3, 7)
    assert repeated_order(factors, 3, 7) != repeated_order(factors, 3, 8)


def test_counts_are_rounded_up_or_down_and_right_on_average() -> None:
    factors = np.array([1.0, 2.5, 1.0, 1.25, 3.0, 1.25])  # sum 10
    total = Counter[int]()
    for epoch in range(2000):
        places = repeated_order(factors, 0, epoch)
        assert len(places) == len(set(places)) == 10
        counts = Counter(place % 6 for place in places)
        for picture, factor in enumerate(factors):
            assert counts[picture] in (np.floor(factor), np.ceil(factor))
            # copies are numbered from 0
            assert sorted(place // 6 for place in places if place % 6 == picture) == list(range(counts[picture]))
        total += counts
    means = [total[picture] / 2000 for picture in range(6)]
    assert means == pytest.approx(factors, abs=0.05)  # 4 standard errors of a half: 0.045


def test_a_sum_that_is_not_whole_is_rounded_up_in_every_epoch() -> None:
    factors = np.array([1.0, 1.3, 1.0])
    assert {len(repeated_order(factors, 0, epoch)) for epoch in range(50)} == {4}
    assert all({place % 3 for place in repeated_order(factors, 0, epoch)} == {0, 1, 2} for epoch in range(50))


def test_factors_of_one_are_a_plain_epoch() -> None:
    assert sorted(repeated_order(np.ones(7), 0, 0)) == list(range(7))


@pytest.fixture
def index(tmp_path: Path) -> CocoIndex:
    """Picture 0 shows a dog, picture 1 a cat and a dog, picture 2 nothing: f_dog = 2 / 3, f_cat = 1 / 3."""
    return load_coco(*write(tmp_path, content()))


def test_the_formula_by_hand(index: CocoIndex) -> None:
    # sqrt(1 / (2 / 3)) = 1.2247, sqrt(1 / (1 / 3)) = 1.7321, and 1 without objects
    assert repeat_factors(index, 1.0) == pytest.approx([1.2247, 1.7321, 1.0], abs=1e-4)
    # sqrt(0.5 / (2 / 3)) < 1, sqrt(0.5 / (1 / 3)) = 1.2247
    assert repeat_factors(index, 0.5) == pytest.approx([1.0, 1.2247, 1.0], abs=1e-4)
    assert repeat_factors(index, 0.1) == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_reads_copies_and_resumes_in_the_middle(index: CocoIndex, workers: int) -> None:
    dataset = DetectionDataset(index, [80], 200, transform=build_transform(0.5, 0.5, 0.5, 0.0))
    loader = EpochLoader(
        dataset, 1, shuffle=True, seed=1, workers=workers, drop_last=True, repeat_factors=repeat_factors(index, 1.0)
    )
    assert loader.steps_per_epoch == 4  # 1.2247 + 1.7321 + 1 = 3.96
    whole = [batch.metas[0]["image_id"] for batch in loader.epoch(5)]
    assert sorted(set(whole)) == [10, 20, 30] and len(whole) == 4
    assert [batch.metas[0]["image_id"] for batch in loader.epoch(5, 2)] == whole[2:]
    assert all(len(loader.batches(epoch)) == 4 for epoch in range(20))


def test_copies_of_a_picture_are_augmented_apart(index: CocoIndex) -> None:
    dataset = DetectionDataset(index, [80], 200, transform=build_transform(0.5, 0.5, 0.0, 0.0))
    shown = [dataset[0, 1 + copy * len(index), 0] for copy in range(6)]
    assert {meta["image_id"] for _, _, meta in shown} == {10}
    assert len({tuple(target["boxes"].flatten().tolist()) for _, target, _ in shown}) > 1
    assert torch.equal(dataset[0, 4, 0][1]["boxes"], shown[1][1]["boxes"])
    assert dataset.file_name(4) == dataset.file_name(1) == "a.png"
