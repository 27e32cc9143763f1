"""How many pictures a second two workers read, augment and resize, and how long training waits for them.

JPEG files of 640x480 with flip, colour and a short side of 800 px.
"""

import json as json_lib
import tempfile
import time
from itertools import chain, count
from pathlib import Path
from typing import Annotated

import cv2
import torch
import typer
from measure import Count, Json, Quick, Row, report
from twins import picture

from detkit.build import build_data, build_detector, build_train_loader
from detkit.cli.errors import run_command
from detkit.config import Config, load_config
from detkit.engine.schedule import build_optimizer
from detkit.engine.step import Stepper


def main(
    pictures: Annotated[int, typer.Option(min=4, help="At least two batches of 2.")] = 400,
    workers: Annotated[int, typer.Option(min=0)] = 2, steps: Count = 4, quick: Quick = False, json: Json = None,
) -> None:  # fmt: skip
    """Time the loader alone, then steps of coco/fpn_r50_1x that are fed by it."""
    side = 64 if quick else 800
    if quick:
        pictures, steps = 12, 2
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), pictures)
        config = load_config("fpn_resnet18" if quick else "coco/fpn_r50_1x").replace(
            {"data.root": folder, "data.workers": workers, "data.colour": 1.0, "data.short_side": side,
             "model.backbone.weights": None, "train.batch_size": 2}
        )  # fmt: skip
        rate = pictures_a_second(config)
        share = share_waited(config, steps)
    rows = [
        Row(f"input pipeline, {workers} workers, 640x480 JPEG", f"{rate:.0f} pictures/s", "100 pictures/s", rate / 100,
            1, None, f"flip, colour, short side {side}"),
        Row("waiting for pictures in training", f"{100 * share:.2f} %", "", None, None, None,
            "share of the time of steps of 2 pictures"),
    ]  # fmt: skip
    report(rows, json)


def pictures_a_second(config: Config) -> float:
    """Of an epoch, from its second batch on: the first waits for the workers to start."""
    loader = build_train_loader(config, build_data(config.data), torch.device("cpu"))
    seen, started = 0, 0.0
    for number, batch in enumerate(loader.epoch(0)):
        if number == 0:
            started = time.perf_counter()
        else:
            seen += len(batch.images)
    return seen / (time.perf_counter() - started)


def share_waited(config: Config, steps: int) -> float:
    """The share of the time that some training steps spend waiting for a batch."""
    data, device = build_data(config.data), torch.device("cpu")
    model = build_detector(config.model, len(data.train.classes)).train()
    stepper = Stepper(model, build_optimizer(model, "sgd", 1e-4, 1e-4), device)
    loader = build_train_loader(config, data, device)
    batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
    stepper.step([next(batches)], 1)
    waited, started = 0.0, time.perf_counter()
    for number in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        stepper.step([batch], number + 2)
    return waited / (time.perf_counter() - started)


def write_set(folder: Path, pictures: int) -> None:
    """Training and validation pictures of 640x480 in COCO's flat layout, an object in each."""
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for i in range(1, pictures + 1):
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), picture((480, 640), i))
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [50, 60, 200, 150], "iscrowd": 0})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    for split in ("train", "val"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json_lib.dumps(content))


if __name__ == "__main__":
    run_command(main)
