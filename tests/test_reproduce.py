"""`detkit reproduce`: hashes of a run, what is named when they differ, and two real runs that agree."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detkit.cli.reproduce import differences
from detkit.engine.checkpoint import load_checkpoint, save_checkpoint
from detkit.engine.fingerprints import fingerprint_run
from tests.conftest import TINY, Outcome
from tests.tiny_run import build_trainer

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
