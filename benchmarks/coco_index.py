"""The index of an annotation file of the size of COCO's train2017: detkit against pycocotools, time and memory.

Each side runs in a process of its own, so that memory is that side's alone. Then two epochs are read by two worker
processes, whose size must not grow.
"""

import json as json_lib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from measure import Json, Quick, Row, Runs, report

from detkit.cli.errors import run_command

SIDES = ("detkit", "pycocotools")
BOXES_A_PICTURE = 860_000 / 118_000


def main(
    pictures: Annotated[int, typer.Option(min=60)] = 118_000,
    read: Annotated[int, typer.Option(min=60, help="Six batches and more are looked at.")] = 10_000,
    runs: Runs = 2, quick: Quick = False, json: Json = None,
    side: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:  # fmt: skip
    """Draw the file, time both, and look at the workers."""
    if side is not None and folder is not None:
        print(json_lib.dumps(load(side, folder)))
        return
    if quick:
        pictures, read, runs = 300, 60, 1
    with tempfile.TemporaryDirectory() as temporary:
        write_set(Path(temporary), pictures)
        size = (Path(temporary) / "instances.json").stat().st_size / 1e6
        results = [{side: in_own_process(side, temporary) for side in SIDES} for _ in range(runs)]
        growth = worker_growth(Path(temporary), read)
    medians = {
        side: {key: float(np.median([result[side][key] for result in results])) for key in results[0][side]}
        for side in SIDES
    }
    ours, theirs = medians["detkit"], medians["pycocotools"]
    same = ours["check"] == theirs["check"]
    what = f"index of {pictures} pictures, {ours['boxes']:.0f} boxes, {size:.0f} MB"
    rows = [
        Row(f"{what}: time", f"{ours['seconds']:.2f} s", f"{theirs['seconds']:.2f} s",
            theirs["seconds"] / ours["seconds"], 5, same),
        Row(f"{what}: memory held", f"{ours['held']:.0f} MB", f"{theirs['held']:.0f} MB",
            theirs["held"] / max(ours["held"], 0.1), 5, same, "resident afterwards, less that before"),
        Row(f"{what}: memory at most", f"{ours['peak']:.0f} MB", f"{theirs['peak']:.0f} MB",
            theirs["peak"] / ours["peak"], 5, same, "largest resident size, less that before"),
        Row("growth of a worker over two epochs", f"{100 * growth:.1f} %", "", None, None, None, "goal: at most 5 %"),
    ]  # fmt: skip
    report(rows, json)


def in_own_process(side: str, folder: str) -> dict[str, float]:
    """What `load` gives in a fresh interpreter."""
    command = [sys.executable, __file__, "--side", side, "--folder", folder]
    return json_lib.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def load(side: str, folder: Path) -> dict[str, float]:
    """Seconds, MB, number of boxes, and the sum of all coordinates by which the sides are compared."""
    file = folder / "instances.json"
    if side == "detkit":
        from detkit.data.coco import load_coco

        before, started = resident(), time.perf_counter()
        index = load_coco(file, folder / "pictures")
        seconds, held = time.perf_counter() - started, resident()
        boxes, check = len(index.boxes), float(np.sum([a["bbox"] for a in index.as_coco()["annotations"]]))
    else:
        from pycocotools.coco import COCO

        before, started = resident(), time.perf_counter()
        coco = COCO(str(file))
        seconds, held = time.perf_counter() - started, resident()
        boxes, check = len(coco.anns), float(np.sum([a["bbox"] for a in coco.anns.values()]))
    return {
        "seconds": seconds, "held": held - before, "peak": resident("VmHWM") - before, "boxes": boxes,
        "check": round(check / boxes, 3),
    }  # fmt: skip


def resident(key: str = "VmRSS", process: int | str = "self") -> float:
    """MB of memory that a process holds now (VmRSS), or held at most (VmHWM)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise ValueError(f"this system does not tell {key}")


def worker_growth(folder: Path, read: int) -> float:
    """By what share the largest worker is larger at the end of two epochs than after its first batches."""
    from detkit.data.coco import load_coco
    from detkit.data.dataset import DetectionDataset
    from detkit.data.loader import EpochLoader

    index = load_coco(folder / "instances.json", folder / "pictures")
    chosen = index.select(np.linspace(0, len(index) - 1, read).astype(np.int64))
    loader = EpochLoader(DetectionDataset(chosen, [64], 128), 10, shuffle=True, workers=2)
    first, last = 0.0, 0.0
    for epoch in range(2):
        for number, _ in enumerate(loader.epoch(epoch)):
            if number % 20 in (5, 19) or number == loader.steps_per_epoch - 6:
                last = max(resident("VmRSS", child) for child in children())
            if number == 5 and epoch == 0:
                first = last
    return last / first - 1


def children() -> list[int]:
    """The worker processes: children of this one."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(number) for number in text.split()]


def write_set(folder: Path, pictures: int) -> None:
    """Small pictures, and annotations with polygons of 20 to 60 coordinates, as COCO's are."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    data = cv2.imencode(".jpg", rng.integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
    images = []
    for i in range(1, pictures + 1):
        name = f"{i:012d}.jpg"
        (folder / "pictures" / name).write_bytes(data)
        images.append(
            {"id": i, "file_name": name, "height": 48, "width": 64, "license": 3, "date_captured": "2013-11-14 16:28",
             "coco_url": f"http://images.cocodataset.org/train2017/{name}"}
        )  # fmt: skip
    owners = np.repeat(np.arange(1, pictures + 1), rng.poisson(BOXES_A_PICTURE, pictures))
    boxes = (rng.random((len(owners), 4)) * (30, 20, 30, 24) + (0, 0, 2, 2)).round(2)
    polygons = [json_lib.dumps([(rng.random(2 * n) * 48).round(2).tolist()]) for n in rng.integers(10, 31, 500)]
    categories = [{"id": k + 1, "name": f"class {k}", "supercategory": "thing"} for k in range(80)]
    rows = enumerate(zip(owners.tolist(), boxes.tolist(), strict=True), start=1)
    with open(folder / "instances.json", "w") as file:
        file.write(f'{{"images": {json_lib.dumps(images)}, "annotations": [')
        for number, (owner, box) in rows:
            polygon = polygons[number % len(polygons)]
            file.write(
                f'{", " if number > 1 else ""}{{"segmentation": {polygon}, "area": {box[2] * box[3]:.4f}, '
                f'"iscrowd": 0, "image_id": {owner}, "bbox": {box}, "category_id": {number % 80 + 1}, "id": {number}}}'
            )
        file.write(f'], "categories": {json_lib.dumps(categories)}}}')


if __name__ == "__main__":
    run_command(main)
