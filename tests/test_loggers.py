"""Loggers beside metrics.jsonl: W&B and MLflow have its rows, each once, also after a crash and a resume."""

import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from detkit.config import load_config
from detkit.engine.log import MetricsLog, read_rows
from detkit.engine.loggers import Sent
from tests.conftest import TINY, Outcome
from tests.test_train_loop import Interrupted
from tests.tiny_run import build_trainer, rows

Curves = dict[str, list[tuple[int, float]]]


def crashed_and_resumed(folder: Path, logger: str) -> Curves:
    """The curves of metrics.jsonl of a run that crashed after step 5 and went on from step 3: row 4 came twice."""
    with pytest.raises(RuntimeError, match="the power went out"):
        build_trainer(folder, Interrupted(5, None), loggers=(logger,), extra={"config": {"train": {"lr": 0.5}}}).run()
    assert [row["step"] for row in rows(folder)] == [2, 3, 4]
    build_trainer(folder, loggers=(logger,)).run()
    curves: Curves = defaultdict(list)
    for row in read_rows(folder / "metrics.jsonl"):
        for key, value in row.items():
            if isinstance(value, float):
                curves[key].append((row["step"], value))
    assert [step for step, _ in curves["loss"]] == [2, 4, 6, 8, 9] and [step for step, _ in curves["AP"]] == [3, 6, 9]
    return curves


def assert_same_curves(found: Mapping[str, list[tuple[int, float]]], expected: Curves) -> None:
    """To the bit, but for the clock's, which may be those from before the crash."""
    assert found.keys() == expected.keys()
    for key, curve in expected.items():
        assert [step for step, _ in found[key]] == [step for step, _ in curve], key
        if "second" not in key:
            assert found[key] == curve, key


@pytest.mark.slow
def test_wandb_has_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs W&B: pip install 'detkit[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    expected = crashed_and_resumed(tmp_path / "run", "wandb")
    assert_same_curves(wandb_curves(tmp_path / "run" / "wandb"), expected)


def wandb_curves(folder: Path) -> Curves:
    """What the files of offline runs hold, which are one run, as their ids say."""
    from wandb.proto.wandb_internal_pb2 import Record

    curves: Curves = defaultdict(list)
    files = sorted(folder.glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    for file in files:
        for record in map(Record.FromString, entries(file.read_bytes())):
            values = {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
            for key in values.keys() - {"step", "_step", "_runtime", "_timestamp"}:
                curves[key].append((int(values["step"]), values[key]))
    return curves


def entries(log: bytes) -> Iterator[bytes]:
    """Those of a LevelDB log of one block behind W&B's seven bytes: checksum, length, kind (whole), content."""
    assert len(log) < 32768
    place = 7
    while place < len(log):
        _, length, kind = struct.unpack_from("<IHB", log, place)
        assert kind == 1
        yield log[place + 7 : place + 7 + length]
        place += 7 + length


@pytest.mark.slow
def test_mlflow_has_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install 'detkit[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run"
    expected = crashed_and_resumed(folder, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("detkit").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params == {"train.lr": "0.5"}
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    assert_same_curves(
        {key: [(entry.step, entry.value) for entry in curve] for key, curve in history.items()}, expected
    )


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed_is_named_before_the_work(
    name: str, shapes: Path, tmp_path: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as Python notes a module that is not there
    run = f"train.output={tmp_path / 'run'}"
    refused = command("train", *TINY, f"data.root={shapes}", run, f"train.loggers=tensorboard,{name}")
    assert refused.status == 2
    assert f"train.loggers: {name} not installed: pip install 'detkit[{name}]', or leave it out" in refused.err
    assert not (tmp_path / "run").exists()


def test_names_are_checked() -> None:
    def loggers(value: str) -> tuple[str, ...]:
        return load_config("fpn_r50", [f"train.loggers={value}"]).train.loggers

    assert load_config("fpn_r50").train.loggers == ("tensorboard",)
    assert loggers("none") == ()
    assert loggers("wandb") == ("wandb",)
    assert loggers("tensorboard, mlflow") == loggers("('tensorboard', 'mlflow')") == ("tensorboard", "mlflow")
    with pytest.raises(ValueError, match=r"train\.loggers.*'tensorboard', 'wandb' or 'mlflow'"):
        loggers("wand")


def test_what_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    first = Sent.read(tmp_path / "note.json", lambda: "a1")
    assert first.fresh(2, {"loss": 1.0}) == {"loss": 1.0}
    assert first.fresh(3, {"AP": 0.5}) == {"AP": 0.5}
    again = Sent.read(tmp_path / "note.json", lambda: "b2")
    assert again.run == "a1"
    assert again.fresh(2, {"loss": 1.0}) == {}
    assert again.fresh(3, {"AP": 0.5, "loss": 2.0}) == {"loss": 2.0}


class Unreachable:
    """A service that goes down after the first row."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def row(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(step)
        if step > 1:
            raise ConnectionError("no route to host")

    def close(self, done: bool) -> None:
        self.told.append(done)


def test_one_that_fails_costs_no_row(tmp_path: Path) -> None:
    down, up = Unreachable(), Unreachable()
    with MetricsLog(tmp_path, 0, {"service": down}) as log:
        log.write({"step": 1, "loss": 1.0})
        with pytest.warns(UserWarning, match=r"service failed \(no route to host\).*metrics\.jsonl alone"):
            log.write({"step": 2, "loss": 1.0})
        log.write({"step": 3, "loss": 1.0})
    assert down.told == [1, 2]
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    with pytest.raises(KeyError), MetricsLog(tmp_path, 3, {"service": up}):
        raise KeyError
    assert up.told == [False]  # it was not done
