"""Each benchmark runs with tiny sizes, and its two sides give the same; how long they take is not tested."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from detkit.cli.errors import run_command
from detkit.config import load_config
from detkit.data.coco import load_coco

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`load(name)`: a benchmark as a module, which finds its neighbours as it does when run as a program."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def rows(module: ModuleType, folder: Path, **options: object) -> list[dict[str, Any]]:
    module.main(quick=True, json=folder / "rows.json", **options)
    return json.loads((folder / "rows.json").read_text())


@pytest.mark.parametrize("name", ["inference", "training_step", "convolution", "roi_pooling", "evaluation"])
def test_both_sides_agree(name: str, load: Any, tmp_path: Path) -> None:
    found = rows(load(name), tmp_path)
    assert found
    for row in found:
        assert row["agrees"] is True, row
        assert row["ratio"] > 0


def test_sides_that_differ_are_told(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("evaluation")
    monkeypatch.setattr(module, "by_pycocotools", lambda truth, found: {"AP": 0.5})
    with pytest.raises(SystemExit) as ended:
        rows(module, tmp_path)
    assert ended.value.code == 1
    assert json.loads((tmp_path / "rows.json").read_text())[0]["agrees"] is False


def test_pictures_come_in(load: Any, tmp_path: Path) -> None:
    rate, share = rows(load("input_pipeline"), tmp_path, workers=0)
    assert rate["ratio"] > 0
    assert share["ours"].endswith("%")


def test_pasted_pictures_are_a_data_set(load: Any, trained: Path, shapes: Path, tmp_path: Path) -> None:
    load("paste_pictures").main(trained / "last.pth", tmp_path / "pasted", [], grid=2)
    index = load_coco(tmp_path / "pasted/annotations/instances_val.json", tmp_path / "pasted/images")
    before = load_coco(shapes / "annotations/instances_val2017.json", shapes / "val2017")
    assert len(index) == 2  # of 8, 4 each
    assert (index.heights == index.widths).all()
    boxes = torch.cat([before.target(i)["boxes"] for i in range(8)])
    pasted = torch.cat([index.target(i)["boxes"] for i in range(2)])
    torch.testing.assert_close(pasted[:, 2:] - pasted[:, :2], boxes[:, 2:] - boxes[:, :2])
    place = int(index.heights[0]) // 2  # the fourth picture lies in the last cell
    last = before.target(3)["boxes"]
    torch.testing.assert_close(index.target(0)["boxes"][-len(last) :], last + place)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("inference", ("--precision", "int8"), "--precision: expected float32 or bfloat16, got 'int8'"),
        ("training_step", ("--precision", "int8", "--quick"), "--precision: expected float32 or bfloat16, got 'int8'"),
        ("roi_pooling", ("--rois", "0"), "--rois"),
        ("inference", ("--height", "20"), "--height"),
        ("bf16_accuracy", ("--checkpoint", "none.pth"), "none.pth: no such checkpoint file"),
        ("evaluation", ("--json", "{folder}/there.json"), "there.json exists already and is not overwritten"),
        ("run_all", ("--output", "{folder}/nowhere/table.md"), "there is no folder"),
        ("memory", ("--side", "mine"), "--side: expected detkit or torchvision, got 'mine'"),
    ],
)
def test_mistakes_are_told_before_the_work(
    name: str, options: tuple[str, ...], words: str, load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "there.json").touch()
    monkeypatch.setattr(sys, "argv", [name, *(option.format(folder=tmp_path) for option in options)])
    monkeypatch.setattr("detkit.cli.errors.use_large_pages", lambda: None)  # of this process
    with pytest.raises(SystemExit) as ended:
        run_command(load(name).main)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_steps_may_be_more_than_an_epoch_has_batches(load: Any, tmp_path: Path) -> None:
    module = load("input_pipeline")
    module.write_set(tmp_path, 4)
    config = load_config("fpn_resnet18").replace(
        {"data.root": str(tmp_path), "data.workers": 0, "data.short_side": 64, "train.batch_size": 2}
    )
    assert 0 <= module.share_waited(config, 2) < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory", "coco_index", "bf16_accuracy"])
def test_in_processes_of_their_own(name: str, load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for row in rows(load(name), tmp_path):
        assert row["agrees"] is not False, row
        assert row["ours"]


def test_the_list_of_all_names_each_benchmark(load: Any) -> None:
    listed = {command.split()[0] for command in load("run_all").COMMANDS}
    # those that give rows of the table; others, such as long proofs, may lie beside them
    assert listed == {path.name for path in FOLDER.glob("*.py") if "json: Json" in path.read_text()}
