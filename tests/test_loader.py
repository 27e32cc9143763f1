"""Batches are a function of (seed, epoch) alone; errors of workers arrive as they were raised."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.data.coco import CocoIndex, load_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.layout import find_layout
from detkit.data.loader import EpochLoader, collate
from detkit.data.packing import pack, unpack
from detkit.data.transforms import build_transform
from detkit.types import Batch


@pytest.fixture(scope="module")
def index(shapes: Path) -> CocoIndex:
    train, _ = find_layout(shapes)
    return load_coco(train.annotations, train.images)


@pytest.fixture(scope="module")
def dataset(index: CocoIndex) -> DetectionDataset:
    return DetectionDataset(index, [48, 64, 80], 128, transform=build_transform(0.5, 0.5, 0.5, 0.5), seed=3)


def of_sizes(*portrait: bool) -> DetectionDataset:
    """A data set whose pictures are never read: only their number and their orientation count."""
    count = len(portrait)
    index = CocoIndex(
        annotations=Path("a.json"), images=Path(), classes=("a",), category_ids=(1,),
        image_ids=np.arange(count), heights=np.where(portrait, 40, 20).astype(np.int32),
        widths=np.where(portrait, 20, 40).astype(np.int32), names=np.zeros(0, np.uint8),
        name_offsets=np.zeros(count + 1, np.int64), boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64),
        crowd=np.zeros(0, bool), areas=np.zeros(0), annotation_ids=np.zeros(0, np.int64),
        offsets=np.zeros(count + 1, np.int64),
    )  # fmt: skip
    return DetectionDataset(index, [20], 40)


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.metas == other.metas
        for mine, theirs in zip(one.images, other.images, strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
        for target, wanted in zip(one.targets, other.targets, strict=True):
            assert target.keys() == wanted.keys()
            assert all(torch.equal(target[key], wanted[key]) for key in target)  # type: ignore[literal-required]


def test_the_same_bits_with_and_without_workers(dataset: DetectionDataset) -> None:
    runs = []
    for workers in (0, 2):
        loader = EpochLoader(dataset, 3, shuffle=True, seed=5, workers=workers)
        runs.append([*loader.epoch(0), *loader.epoch(1)])
    assert_equal(*runs)
    first, second = runs[0][: len(runs[0]) // 2], runs[0][len(runs[0]) // 2 :]
    assert [batch.metas for batch in first] != [batch.metas for batch in second]


def test_resuming_gives_the_rest_and_reads_nothing_before_it(
    dataset: DetectionDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = EpochLoader(dataset, 3, shuffle=True, seed=5)
    whole = list(loader.epoch(2))
    read: list[tuple[int, int, int]] = []
    original = DetectionDataset.__getitem__
    monkeypatch.setattr(DetectionDataset, "__getitem__", lambda self, key: (read.append(key), original(self, key))[1])
    assert_equal(list(loader.epoch(2, start=3)), whole[3:])
    assert [key[:2] for key in read] == [(2, i) for i in flat(loader.batches(2)[3:])]
    assert list(loader.epoch(2, start=loader.steps_per_epoch)) == []


def test_an_epoch_shows_the_same_picture_otherwise(index: CocoIndex, dataset: DetectionDataset) -> None:
    views = [dataset[epoch, 0, 0][0] for epoch in range(6)]
    assert torch.equal(views[0], dataset[0, 0, 0][0])
    assert len({view.numpy().tobytes() for view in views}) >= 3
    other = DetectionDataset(index, [48, 64, 80], 128, transform=dataset.transform, seed=4)
    assert any(not torch.equal(other[epoch, 0, 0][0], views[epoch]) for epoch in range(6))


def test_torchs_global_random_state_is_left_alone(dataset: DetectionDataset) -> None:
    loader = EpochLoader(dataset, 4, shuffle=True, seed=0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = next(iter(loader.epoch(0)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)
    assert_equal([next(iter(loader.epoch(0)))], [first])


def test_batches_are_of_one_orientation_and_only_the_last_are_mixed() -> None:
    portrait = [i % 3 == 0 for i in range(20)]  # 7 portrait, 13 landscape
    loader = EpochLoader(of_sizes(*portrait), 4, shuffle=True, seed=1)
    for epoch in range(5):
        batches = loader.batches(epoch)
        assert sorted(flat(batches)) == list(range(20)) and len(batches) == loader.steps_per_epoch == 5
        assert all(len({portrait[i] for i in batch}) == 1 for batch in batches[:4])
        assert batches[4] and sorted(portrait[i] for i in batches[4]) == [False, True, True, True]


def test_drop_last_leaves_out_less_than_a_batch() -> None:
    loader = EpochLoader(of_sizes(*[i < 3 for i in range(22)]), 4, shuffle=True, seed=1, drop_last=True)
    seen: set[int] = set()
    for epoch in range(10):
        batches = loader.batches(epoch)
        assert [len(batch) for batch in batches] == [4] * 5 and len(set(flat(batches))) == 20
        seen |= set(flat(batches))
    assert seen == set(range(22))  # also the 3 portrait pictures, which fill no batch of their own


def test_fewer_pictures_than_a_batch_are_one_batch() -> None:
    loader = EpochLoader(of_sizes(False, True, False), 8, shuffle=False, drop_last=True)
    assert loader.steps_per_epoch == 1 and sorted(flat(loader.batches(0))) == [0, 1, 2]


def test_without_shuffling_the_order_is_that_of_the_file() -> None:
    loader = EpochLoader(of_sizes(*[False] * 5), 2, shuffle=False)
    assert loader.batches(0) == loader.batches(7) == [[0, 1], [2, 3], [4]]
    plain = EpochLoader(of_sizes(True, False, True, False), 2, shuffle=False, group_by_aspect=False)
    assert plain.batches(0) == [[0, 1], [2, 3]]


def test_ranks_share_the_batches() -> None:
    data = of_sizes(*[False] * 24)
    whole = EpochLoader(data, 3, shuffle=True, seed=1).batches(4)
    ranks = [EpochLoader(data, 3, shuffle=True, seed=1, rank=rank, world_size=2).batches(4) for rank in (0, 1)]
    assert [batch for pair in zip(*ranks, strict=True) for batch in pair] == whole


def test_seeds_and_epochs_give_orders_of_their_own() -> None:
    data = of_sizes(*[False] * 30)
    orders = {
        tuple(flat(EpochLoader(data, 4, shuffle=True, seed=seed).batches(epoch)))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


@pytest.fixture
def broken(index: CocoIndex, tmp_path: Path) -> DetectionDataset:
    """The first picture is cut off in the middle."""
    shutil.copytree(index.images, tmp_path / "pictures")
    file = tmp_path / "pictures" / index.file_name(0)
    file.write_bytes(file.read_bytes()[:900])
    return DetectionDataset(replace(index, images=tmp_path / "pictures"), [64], 128)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_arrives_as_it_was_raised(broken: DetectionDataset, workers: int) -> None:
    with pytest.raises(ValueError) as direct:
        broken[0, 0, 0]
    loader = EpochLoader(broken, 4, shuffle=False, workers=workers, group_by_aspect=False)
    with pytest.raises(ValueError) as error:
        list(loader.epoch(0))
    assert str(error.value) == str(direct.value)
    assert str(broken.index.path(0)) in str(error.value) and "Traceback" not in str(error.value)


def test_unreadable_pictures_are_skipped_and_named_on_demand(broken: DetectionDataset) -> None:
    loader = EpochLoader(broken, 4, shuffle=False, group_by_aspect=False, skip_unreadable=True)
    batches = list(loader.epoch(0))
    assert [len(batch.images) for batch in batches] == [3, 4, 4, 4]
    assert list(loader.skipped) == [broken.index.file_name(0)]
    alone = EpochLoader(broken, 1, shuffle=False, group_by_aspect=False, skip_unreadable=True)
    with pytest.raises(ValueError, match=r"none of the 1 pictures of a batch can be read: .*000001\.png"):
        next(iter(alone.epoch(0)))


def test_unpack_is_the_inverse_of_pack(dataset: DetectionDataset) -> None:
    batch = collate([dataset[0, i, 0] for i in range(6)])
    for target in batch.targets:
        if not len(target.get("ignore", ())):
            target.pop("ignore", None)
    batch.targets[1]["ignore"] = torch.tensor([[1.0, 2, 3, 4]])
    assert_equal([unpack(pack(batch))], [batch])


def test_targets_follow_the_resizing(index: CocoIndex) -> None:
    data = DetectionDataset(index, [32], 40)
    for i in range(len(index)):
        image, target, meta = data[0, i, 0]
        assert image.dtype == torch.uint8 and max(image.shape[1:]) <= 40 and min(image.shape[1:]) <= 32
        scale = torch.tensor([image.shape[2] / meta["width"], image.shape[1] / meta["height"]] * 2)
        assert torch.allclose(target["boxes"], index.target(i)["boxes"] * scale)
        assert (meta["image_id"], meta["file_name"]) == (index.image_ids[i], index.file_name(i))


def test_real_pictures_come_in_batches(real_data: Path) -> None:
    for name in ("roadsigns", "bccd", "coco-mini"):
        train, _ = find_layout(real_data / name)
        index = load_coco(train.annotations, train.images, limit=8)
        data = DetectionDataset(index, [200], 320, transform=build_transform(0.5, 0, 0.5, 0.5))
        batches = list(EpochLoader(data, 4, shuffle=True).epoch(0))
        assert sorted(meta["image_id"] for batch in batches for meta in batch.metas) == sorted(index.image_ids.tolist())
        for batch in batches:
            for image, target in zip(batch.images, batch.targets, strict=True):
                assert image.shape[0] == 3 and max(image.shape[1:]) <= 320
                assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
                assert (target["boxes"][:, 2:] <= torch.tensor(image.shape[:0:-1]) + 1e-3).all()


def test_the_pictures_of_a_batch_share_a_short_side(index: CocoIndex) -> None:
    loader = EpochLoader(DetectionDataset(index, [48, 64, 80], 999), 3, shuffle=True, seed=5)
    sides = [{min(image.shape[1:]) for image in batch.images} for epoch in range(4) for batch in loader.epoch(epoch)]
    assert all(len(side) == 1 for side in sides)
    assert len(set.union(*sides)) > 1
