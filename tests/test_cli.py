"""The commands from end to end on a tiny detector, and what each kind of wrong input gets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detkit.engine.checkpoint import load_checkpoint
from detkit.evaluation.coco import COCO_METRICS, evaluate_coco
from detkit.predict import Detector
from tests.conftest import TINY, Outcome, metric_rows

Command = Callable[..., Outcome]


def test_a_run_folder_explains_itself(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"best.pth", "last.pth", "metrics.jsonl", "config.json", "classes.json", "environment.json"} <= names
    assert json.loads((trained / "classes.json").read_text())[0] == "circle"
    assert json.loads((trained / "config.json").read_text())["model"]["backbone"]["name"] == "resnet18"
    assert len(list(trained.glob("sheet_*.jpg"))) == 2  # four steps are an epoch, six the run


def test_metrics_carry_losses_and_cocos_names(trained: Path) -> None:
    rows = metric_rows(trained)
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == [1, 2, 3, 4, 5, 6]
    parts = ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box")
    assert training[0]["loss"] == pytest.approx(sum(training[0][part] for part in parts))
    evaluation = [row for row in rows if "AP" in row]
    assert [row["step"] for row in evaluation] == [4, 6]
    assert set(COCO_METRICS) <= set(evaluation[0])


def test_a_second_run_writes_over_nothing(trained: Path, shapes: Path, command: Command) -> None:
    before = (trained / "last.pth").read_bytes()
    done = command("train", *TINY, f"data.root={shapes}", f"train.output={trained}", "train.iterations=1")
    assert done.status == 0, done.err
    assert (trained / "last.pth").read_bytes() == before
    assert (trained.with_name("tiny-2") / "last.pth").is_file()


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_same_numbers_whatever_the_workers(
    workers: int, trained: Path, shapes: Path, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "again"
    done = command("train", *TINY, f"data.root={shapes}", f"train.output={folder}", f"data.workers={workers}")
    assert done.status == 0, done.err
    assert metric_rows(folder) == metric_rows(trained)
    old, new = (load_checkpoint(run / "last.pth")["model"] for run in (trained, folder))
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_resume_in_an_empty_folder_starts_there(shapes: Path, tmp_path: Path, command: Command) -> None:
    arguments = (*TINY, f"data.root={shapes}", f"train.output={tmp_path / 'run'}", "train.iterations=2", "--resume")
    assert command("train", *arguments).status == 0
    changed = command("train", *arguments, "train.lr=0.5")
    assert changed.status == 2
    assert "train.lr" in changed.err
    assert command("train", *arguments).status == 0  # nothing is left to do


def test_eval_prints_tables_and_writes_json(trained: Path, tmp_path: Path, command: Command) -> None:
    numbers, found = tmp_path / "numbers.json", tmp_path / "found.json"
    done = command("eval", trained / "last.pth", "--json", numbers, "--predictions", found)
    assert done.status == 0, done.err
    assert "AP50" in done.out and "triangle" in done.out
    report = json.loads(numbers.read_text())
    last = [row for row in metric_rows(trained) if "AP" in row][-1]
    assert report["metrics"]["AP50"] == pytest.approx(last["AP50"], abs=0.02)  # folded norm rounds otherwise
    config = load_checkpoint(trained / "last.pth")["config"]
    truth = Path(config["data"]["root"]) / "annotations/instances_val2017.json"
    assert evaluate_coco(truth, found, "pycocotools") == pytest.approx(report["metrics"], abs=1e-9)
    assert command("eval", trained / "last.pth", "--json", numbers).status == 2  # it is there already


def test_both_backends_give_the_same_json(trained: Path, command: Command) -> None:
    outputs = [
        json.loads(command("eval", trained / "best.pth", "--json", "-", "--backend", backend).out)
        for backend in ("hotcoco", "pycocotools")
    ]
    assert outputs[0]["metrics"] == pytest.approx(outputs[1]["metrics"], abs=1e-12)


def test_demo_says_that_of_an_animation_it_takes_the_first_picture(
    trained: Path, tmp_path: Path, command: Command
) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "green", "blue")]
    for name, more in (
        ("film.gif", frames[1:]),
        ("still.gif", []),
        ("pages.tif", frames[1:]),
        ("film.webp", frames[1:]),
    ):
        frames[0].save(tmp_path / name, save_all=True, append_images=more)
    files = [tmp_path / name for name in ("film.gif", "still.gif", "pages.tif", "film.webp")]
    done = command("demo", trained / "last.pth", *files, "--output", tmp_path / "out")
    assert done.status == 0, done.err
    notes = [line for line in done.out.splitlines() if line.startswith("note: ")]
    assert [Path(line.split()[1]).name for line in notes] == ["film.gif", "pages.tif", "film.webp"]


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [("avx2", "device cpu, float32: it has no bfloat16"), ("avx512_bf16", "device cpu, bfloat16: it has bfloat16")],
)
def test_eval_says_which_precision_it_chose_and_why(
    trained: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capability: str, chosen: str
) -> None:
    def stop(*_: object) -> None:
        raise ValueError("not now: it may be emulated")

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    monkeypatch.setattr("detkit.cli.evaluate.score_checkpoint", stop)
    printed = command("eval", trained / "best.pth").out
    assert chosen in printed
    assert ("3x3 convolutions by detkit: it has no AVX-512" in printed) == (capability == "avx2")


def test_demo_draws_and_writes_predictions(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    pattern = shapes / "val2017/00000[1-3].png"
    done = command(
        "demo",
        trained / "last.pth",
        pattern,
        shapes / "train2017",
        "--output",
        out,
        "--score",
        "0.01",
        "--precision",
        "float32",
    )
    assert done.status == 0, done.err
    predictions = json.loads((out / "predictions.json").read_text())
    images = json.loads((out / "images.json").read_text())
    assert [image["id"] for image in images] == list(range(1, 3 + 16 + 1))
    assert len(list(out.glob("*.png"))) == 3 + 16  # the names of both folders repeat, and none is lost
    assert predictions
    for row in predictions:
        assert set(row) == {"image_id", "category_id", "bbox", "score"}
        assert row["score"] >= 0.01
    assert "device cpu, float32: as asked" in done.out
    again = command("demo", trained / "last.pth", pattern, "--output", out)
    assert again.status == 2 and "not overwritten" in again.err


def test_the_detector_takes_files_and_arrays(trained: Path, shapes: Path) -> None:
    detector = Detector.load(trained / "last.pth", overrides=["model.score_threshold=0.01"])
    file = shapes / "val2017/000001.png"
    array = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
    first, second = detector([file, array], batch_size=2)
    assert len(first["boxes"]) > 0
    torch.testing.assert_close(first["boxes"], second["boxes"])
    height, width = array.shape[:2]
    assert (first["boxes"][:, 2] <= width).all() and (first["boxes"][:, 3] <= height).all()
    with pytest.raises(ValueError, match="uint8"):
        detector([array.astype(np.float32)])


def test_start_from_a_detector_of_other_classes(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = "disc"
        file.write_text(json.dumps(content))
    weights = f"model.weights={trained / 'last.pth'}"
    done = command(
        "train", *TINY, f"data.root={root}", weights, f"train.output={tmp_path / 'run'}", "train.iterations=1"
    )
    assert done.status == 0, done.err
    assert "renewed" in done.out and "loaded" in done.out


WRONG = {
    "no such config": (("train", "fpn_r5O"), "fpn_r50"),
    "unknown key": (("train", "fpn_r50", "train.epoch=3"), "train.epochs"),
    "unknown section": (("train", "fpn_r50", "trian.epochs=3"), "train.epochs"),
    "no value": (("train", "fpn_r50", "train.epochs"), "section.key=value"),
    "out of range": (("train", "fpn_r50", "train.epochs=0"), "train.epochs"),
    "wrong type": (("train", "fpn_r50", "train.lr=fast"), "train.lr"),
    "no such data": (("train", "fpn_r50", "data.root=/no/such/folder"), "/no/such/folder"),
    "no such device": (("train", "fpn_r50", "train.device=warp"), "warp"),
    "unknown backbone": (("train", *TINY, "model.backbone.name=resnet51", "data.root={shapes}"), "resnet50"),
    "anchor sizes": (("train", *TINY, "model.rpn.anchor_sizes=(8,16)", "data.root={shapes}"), "anchor_sizes"),
    "no checkpoint": (("eval", "{tmp}/none.pth"), "none.pth"),
    "text as checkpoint": (("eval", "{tmp}/text.pth"), "text.pth"),
    "unknown backend": (("eval", "{trained}/best.pth", "--backend", "mine"), "hotcoco"),
    "folder as checkpoint": (("demo", "{trained}", "{tmp}/text.jpg"), "best.pth"),
    "empty name": (("demo", "{trained}/best.pth", ""), "empty name"),
    "drawn over a file": (("demo", "{trained}/best.pth", "{tmp}/text.jpg", "--output", "{tmp}/text.pth/a"), "text.pth"),
    "pictures and a page": (("demo", "{trained}/best.pth", "{tmp}/text.jpg", "--web"), "text.jpg"),
    "a closer report": (("eval", "{trained}/best.pth", "--tta", "--report", "{tmp}/r.html"), "--report"),
    "no pictures": (("demo", "{trained}/best.pth", "{tmp}/*.gif"), "*.gif"),
    "text as picture": (("demo", "{trained}/best.pth", "{tmp}/text.jpg", "--output", "{tmp}/out"), "text.jpg"),
    "output is a file": (("train", *TINY, "data.root={shapes}", "train.output={tmp}/text.pth/run"), "train.output"),
    "no device to compute on": (("train", *TINY, "data.root={shapes}", "train.device=meta"), "device 'meta' cannot"),
    "weights of nothing": (("train", *TINY, "data.root={shapes}", "model.weights={tmp}/text.pth"), "text.pth"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_gets_one_clear_line(
    name: str, trained: Path, shapes: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "text.jpg").write_text("not a picture")
    arguments, expected = WRONG[name]
    done = command(*(text.format(tmp=tmp_path, trained=trained, shapes=shapes) for text in arguments))
    assert done.status == 2
    assert expected in done.err
    assert "Traceback" not in done.err
    assert done.err.startswith("error:")


def test_other_classes_at_evaluation(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"][1]["name"] = "lorry"
    file.write_text(json.dumps(content))
    done = command("eval", trained / "best.pth", f"data.root={root}")
    assert done.status == 2
    assert "lorry" in done.err and "circle" in done.err


def test_debug_shows_the_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", "no_such_config", "--debug"])
    from detkit.cli.train import main

    with pytest.raises(ValueError, match="no_such_config"):
        main()


def test_resume_never_takes_over_a_foreign_folder(shapes: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = command("train", *TINY, f"data.root={shapes}", f"train.output={tmp_path}", "--resume")
    assert done.status == 2 and "thesis.txt" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failed_start_leaves_no_run_folder(shapes: Path, tmp_path: Path, command: Command) -> None:
    arguments = (*TINY, f"data.root={shapes}", f"train.output={tmp_path / 'run'}", "model.backbone.name=resnet51")
    assert command("train", *arguments).status == 2
    assert not (tmp_path / "run").exists()


def test_eval_needs_the_validation_split_only(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    root = tmp_path / "val-only"
    shutil.copytree(shapes, root)
    shutil.rmtree(root / "train2017")
    (root / "annotations/instances_train2017.json").unlink()
    done = command("eval", trained / "best.pth", f"data.root={root}")
    assert done.status == 0, done.err
    assert "8 pictures" in done.out


def test_a_broken_row_beyond_the_limit_does_not_matter(shapes: Path, tmp_path: Path, command: Command) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    last = content["images"][-1]["id"]
    bad = {"id": 10_000, "image_id": last, "category_id": 1, "bbox": [1, 1, -5, 5], "area": 1, "iscrowd": 0}
    content["annotations"].append(bad)
    file.write_text(json.dumps(content))
    arguments = (*TINY, f"data.root={root}", f"train.output={tmp_path / 'run'}", "train.iterations=1")
    done = command("train", *arguments)
    assert done.status == 2 and "10000" in done.err and "instances_val2017.json" in done.err
    assert command("train", *arguments, "data.limit=4").status == 0
    assert command("train", *arguments, "data.on_bad=drop").status == 0


def test_the_demo_leaves_its_own_drawings_alone(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(shapes / "val2017", pictures)
    out = pictures / "drawn"
    shutil.copytree(shapes / "val2017", out / "older")
    done = command("demo", trained / "last.pth", pictures, "--output", out)
    assert done.status == 0, done.err
    assert len(json.loads((out / "images.json").read_text())) == 8


def test_deterministic_algorithms_on_request(shapes: Path, tmp_path: Path, command: Command) -> None:
    arguments = (*TINY, f"data.root={shapes}", f"train.output={tmp_path / 'run'}", "train.iterations=1")
    try:
        done = command("train", *arguments, "train.deterministic=true")
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert done.status == 0, done.err


def test_resume_after_a_kill_in_the_first_checkpoint(shapes: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / ".last.pth.tmp").write_bytes(b"half a checkpoint")
    arguments = (*TINY, f"data.root={shapes}", f"train.output={tmp_path}", "train.iterations=1", "--resume")
    done = command("train", *arguments)
    assert done.status == 0, done.err
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] == 1
