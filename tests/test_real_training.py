"""Training on real pictures with ResNet-50-FPN: it learns four road signs by heart, and a stopped run resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detkit.engine.checkpoint import load_checkpoint
from tests.conftest import TINY, Outcome, metric_rows


def four_pictures(real_data: Path, folder: Path) -> Path:
    """An annotation file with four road-sign pictures, each with a single sign."""
    content = json.loads((real_data / "roadsigns/annotations/instances_train.json").read_text())
    counts = {image["id"]: 0 for image in content["images"]}
    for row in content["annotations"]:
        counts[row["image_id"]] += 1
    chosen = [image for image in content["images"] if counts[image["id"]] == 1 and image["width"] > image["height"]]
    content["images"] = [image for image in chosen if image["height"] == chosen[0]["height"]][:4]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    file = folder / "four.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.slow
def test_four_road_signs_are_learned_by_heart(real_data: Path, tmp_path: Path, command: Callable[..., Outcome]) -> None:
    file, images = four_pictures(real_data, tmp_path), real_data / "roadsigns/images"
    started = time.monotonic()
    done = command(
        "train",
        "fpn_r50",
        f"data.root={real_data / 'roadsigns'}",
        f"data.train_annotations={file}",
        f"data.val_annotations={file}",
        f"data.train_images={images}",
        f"data.val_images={images}",
        "data.short_side=112",
        "data.train_scales=(1.0,)",
        "data.flip=0",
        "data.workers=0",
        "train.batch_size=4",
        "train.iterations=76",
        "train.lr=2.4e-3",
        "train.warmup_steps=10",
        "train.ema_decay=0",
        "train.eval_every=100",
        f"train.output={tmp_path / 'run'}",
    )
    assert done.status == 0, done.err
    final = [row for row in metric_rows(tmp_path / "run") if "AP" in row][-1]
    assert final["AP"] >= 0.9, f"AP {final['AP']:.3f} on the pictures it was trained on"
    assert time.monotonic() - started < 180 / min(torch.get_num_threads(), 2)  # 43 s on 2 quiet cores, 100 on one


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_bits(shapes: Path, tmp_path: Path, command: Callable[..., Outcome]) -> None:
    arguments = [*TINY, f"data.root={shapes}", "train.iterations=12", "train.ema_decay=0.9", "data.workers=2"]
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    assert command("train", *arguments, f"train.output={through}").status == 0
    code = "from detkit.cli.train import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, f"train.output={stopped}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(metric_rows(stopped) if (stopped / "config.json").exists() else []) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert (stopped / "last.pth").is_file()
    assert load_checkpoint(stopped / "last.pth")["training"]["step"] < 12
    assert command("train", *arguments, f"train.output={stopped}", "--resume").status == 0
    assert metric_rows(stopped) == metric_rows(through)
    one, other = (load_checkpoint(folder / "last.pth") for folder in (through, stopped))
    for kind in ("model", "ema"):
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])
