"""What all tests share: real pictures, a small Shapes set, a detector trained for a few steps, and the command line."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.cli.browse import main as browse_main
from detkit.cli.convert import main as convert_main
from detkit.cli.demo import main as demo_main
from detkit.cli.doctor import main as doctor_main
from detkit.cli.evaluate import main as evaluate_main
from detkit.cli.features import main as features_main
from detkit.cli.import_weights import main as import_main
from detkit.cli.plot import main as plot_main
from detkit.cli.profile import main as profile_main
from detkit.cli.reproduce import main as reproduce_main
from detkit.cli.train import main as train_main
from detkit.cli.train_cls import main as train_cls_main
from detkit.data.shapes import draw_shapes
from detkit.predict import Detector
from tests.processes import ROOT, finished, ranks

MAINS = {
    "train": train_main,
    "train-cls": train_cls_main,
    "eval": evaluate_main,
    "browse": browse_main,
    "convert": convert_main,
    "features": features_main,
    "demo": demo_main,
    "doctor": doctor_main,
    "import-weights": import_main,
    "profile": profile_main,
    "plot": plot_main,
    "reproduce": reproduce_main,
}

# ResNet-18 on pictures of 64 px: a step takes a fraction of a second.
TINY = (
    "fpn_r50",
    "model.backbone.name=resnet18",
    "model.neck.out_channels=32",
    "model.roi_head.width=32",
    "model.roi_head.samples=16",
    "data.short_side=64",
    "data.train_scales=(1.0,)",
    "data.workers=0",
    "train.batch_size=4",
    "train.iterations=6",
    "train.log_every=1",
    "train.eval_every=1",
    "train.save_every=1",
)


def pytest_configure(config: pytest.Config) -> None:
    """Workers of `pytest -n` share the cores: each computes with one thread, as do the processes that it starts."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (roadsigns, bccd, coco-mini), named by DETKIT_DATA."""
    folder = os.environ.get("DETKIT_DATA")
    if not folder:
        pytest.skip("needs real pictures: set DETKIT_DATA to a folder with roadsigns, bccd and coco-mini")
    return Path(folder)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`command("eval", "best.pth", ...)` runs a command in this process, as its file in tools/ does."""

    def run(name: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            MAINS[name]()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training and 8 validation pictures of Shapes."""
    root = tmp_path_factory.mktemp("shapes")
    draw_shapes(root, train=16, val=8)
    return root


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a detector that was trained for six steps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    before = sys.argv
    sys.argv = ["train", *TINY, f"data.root={shapes}", f"train.output={folder}"]
    try:
        with pytest.raises(SystemExit) as ended:
            train_main()
    finally:
        sys.argv = before
    assert ended.value.code in (0, None)
    return folder


@pytest.fixture(scope="session")
def trained_detector(trained: Path) -> Detector:
    """That of `trained`, which says what it finds whatever the score."""
    return Detector.load(trained / "last.pth", overrides=["model.score_threshold=0.01"])


RANKED_RUN = ROOT / "tests" / "ranked_run.py"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tests/ranked_run.py as two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with ranks(RANKED_RUN, folder) as processes:
        for status, output, errors in finished(processes, timeout=90):
            assert status == 0, output + errors
    return folder


def metric_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock."""
    from detkit.engine.log import TIME_FIELDS

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIME_FIELDS} for row in rows]
