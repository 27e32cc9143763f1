"""`detkit reproduce`: hashes of a run, what is named when they differ, and two real runs that agree."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.cli.reproduce import differences
from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.engine.fingerprints import fingerprint_run
from detkit.engine.seeding import seed_step, use_deterministic_algorithms
from detkit.engine.step import Stepper
from detkit.types import Batch
from tests.conftest import TINY, Outcome
from tests.tiny_detector import picture, target, tiny_detector
from tests.tiny_run import assert_same, build_trainer

Command = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    build_trainer(tmp_path / "run").run()
    return tmp_path / "run"


def changed(run: Path, name: str, row: int | None = None) -> Path:
    """A copy of a run in which one weight or moment is one bit off, or one row has another loss."""
    copy = run.with_name("changed")
    shutil.copytree(run, copy)
    state = load_checkpoint(run / "last.pth")
    if row is not None:
        lines = (copy / "metrics.jsonl").read_text().splitlines()
        lines[row] = json.dumps(json.loads(lines[row]) | {"loss": 1.0})
        (copy / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return copy
    tensor = state["model"][name] if name in state["model"] else state["training"]["optimizer"]["state"][0][name]
    value = tensor.view(-1)
    value[1] = torch.nextafter(value[1], torch.tensor(torch.inf))
    save_checkpoint(copy / "last.pth", state)
    return copy


def test_a_run_equals_itself_and_clocks_do_not_count(run: Path) -> None:
    first = fingerprint_run(run)
    assert first.keys() == {"weights", "average", "optimizer", "metrics"}
    assert differences(first, fingerprint_run(run)) == []
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"seconds_per_step": ', '"seconds_per_step": 9'))
    assert fingerprint_run(run) == first


def test_one_bit_is_named(run: Path) -> None:
    first = fingerprint_run(run)
    weight = differences(first, fingerprint_run(changed(run, "head.weight")))
    assert weight == ["weights: head.weight"]
    shutil.rmtree(run.with_name("changed"))
    momentum = differences(first, fingerprint_run(changed(run, "momentum_buffer")))
    assert momentum == ["optimizer: state.0.momentum_buffer"]
    shutil.rmtree(run.with_name("changed"))
    row = differences(first, fingerprint_run(changed(run, "", row=1)))
    assert row == ["metrics: row 2 (step 3)"]


def test_a_tensor_or_row_that_only_one_has_differs() -> None:
    one, other = {"weights": {"a": "1", "b": "2"}}, {"weights": {"a": "1"}, "average": {"a": "1"}}
    assert differences(one, other) == ["weights: b", "average: a"]


@pytest.fixture
def deterministic() -> Iterator[None]:
    use_deterministic_algorithms()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_steps_of_a_detector_with_deterministic_operators_repeat_to_the_bit() -> None:
    """Forward, backward and update, on as many threads as there are; no operator refuses."""
    first, second = two_steps(), two_steps()
    assert first["losses"][0] != first["losses"][1]
    assert_same(first, second)


def two_steps() -> dict[str, Any]:
    model = tiny_detector()
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), torch.device("cpu"))
    metas: Any = [{"image_id": i, "file_name": f"{i}.jpg", "height": 96, "width": 128} for i in range(2)]
    targets = [target((5, 6, 30, 28), (20, 20, 60, 50)), target()]
    batch = Batch([picture(96, 128, seed=i) for i in range(2)], targets, metas)
    losses = []
    for step in range(2):
        seed_step(0, step)
        losses.append(stepper.step([batch], step + 1).losses)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"losses": losses, "weights": model.state_dict(), "gradients": gradients}


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_two_real_runs_are_the_same_to_the_last_bit(shapes: Path, command: Command) -> None:
    arguments = (*TINY, f"data.root={shapes}", "train.ema_decay=0.9", "train.val_losses=true")
    done = command("reproduce", *arguments, "--steps", "2", "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["same"] and report["first"] == report["second"]
    assert len(report["first"]["metrics"]) == 3  # two steps and an evaluation
    assert any(name.startswith("backbone.") for name in report["first"]["average"])


def test_wrong_input_gets_one_clear_line(tmp_path: Path, command: Command) -> None:
    wrong = command("reproduce", "fpn_r50", "train.epoch=1")
    assert wrong.status == 2 and "train.epochs" in wrong.err
    missing = command("reproduce", "fpn_r50", f"data.root={tmp_path / 'none'}")
    assert missing.status == 2 and "none" in missing.err
    assert missing.err.count("error:") == 1
