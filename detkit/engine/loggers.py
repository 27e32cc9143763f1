"""Where the rows of metrics.jsonl go beside it: TensorBoard, Weights & Biases, MLflow.

metrics.jsonl is the one truth, and these repeat it. A run that goes on goes on there, too, and repeats no row.
"""

import importlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from detkit.files import write_json

# What they leave in the run folder; where a machine is lost with it, the notes are what another one needs.
NOTES = ("wandb.json", "mlflow.json", "mlflow.db")
FILES = ("tensorboard", "wandb", *NOTES)
# What to do where one refuses a run.
_ADVICE = {
    "tensorboard": "look at the folder tensorboard",
    "wandb": "`wandb login`, or set WANDB_MODE=offline, or leave it out",
    "mlflow": "look at MLFLOW_TRACKING_URI, or leave it out",
}
# How many parameters MLflow takes in one request.
_PARAMETERS = 100


class Logger(Protocol):
    """Takes the numbers of each row."""

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Take in what a row says of `step`."""
        ...

    def close(self, done: bool) -> None:
        """Write what is left; `done`: the run came to its end, and was not stopped."""
        ...


def check_loggers(names: Sequence[str]) -> None:
    """Raises ValueError for loggers that are not installed here."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        package = "tensorboard" if missing == ["tensorboard"] else f"'detkit[{','.join(missing)}]'"
        raise ValueError(f"train.loggers: {', '.join(missing)} not installed: pip install {package}, or leave it out")


def open_loggers(names: Sequence[str], folder: Path, step: int, config: dict[str, Any]) -> dict[str, Logger]:
    """The loggers of a run in `folder` that goes on after `step`; `config` is told to those that show it.

    Raises ValueError for one that is not installed or refuses the run.
    """
    check_loggers(names)
    kinds: dict[str, Callable[[Path, int, dict[str, Any]], Logger]] = {
        "tensorboard": TensorBoard,
        "wandb": WandB,
        "mlflow": MLflow,
    }
    opened: dict[str, Logger] = {}
    for name in names:
        try:
            opened[name] = kinds[name](folder, step, config)
        except Exception as error:  # each service has its own way to refuse
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"train.loggers: {name} refuses the run ({reason}); {_ADVICE[name]}") from error
    return opened


class TensorBoard:
    """Event files in tensorboard/, of which TensorBoard hides those after `step`."""

    def __init__(self, folder: Path, step: int, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, so only when training

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, done: bool) -> None:
        self._writer.close()


@dataclass
class Sent:
    """The run at a service, and the last step that each of its curves has, noted in a file of the run folder."""

    note: Path
    run: str
    steps: dict[str, int]

    @classmethod
    def read(cls, note: Path, new_run: Callable[[], str]) -> "Sent":
        """What a run noted that goes on here; `new_run` makes one at the service, and returns its id."""
        if not note.exists():
            return cls(note, new_run(), {})
        noted = json.loads(note.read_text())
        return cls(note, noted["run"], noted["steps"])

    def fresh(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """The values that are still to be sent, which are noted as sent."""
        fresh = {key: value for key, value in values.items() if step > self.steps.get(key, 0)}
        self.steps.update(dict.fromkeys(fresh, step))
        write_json(self.note, {"run": self.run, "steps": self.steps})
        return fresh


class WandB:
    """A run of Weights & Biases in the project of WANDB_PROJECT; with WANDB_MODE=offline its files are in wandb/."""

    def __init__(self, folder: Path, step: int, config: dict[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._sent = Sent.read(folder / "wandb.json", lambda: secrets.token_hex(4))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "detkit"),
            name=folder.name,
            id=self._sent.run,
            resume="allow",
            dir=folder,
            config=config,
            settings=wandb.Settings(console="off"),  # the progress bar is no log
        )
        self._run.define_metric("*", step_metric="step")

    def row(self, step: int, values: Mapping[str, float]) -> None:
        fresh = self._sent.fresh(step, values)
        if fresh:
            self._run.log({"step": step, **fresh})

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class MLflow:
    """A run of MLflow at MLFLOW_TRACKING_URI, by default the file mlflow.db of the run folder."""

    def __init__(self, folder: Path, step: int, config: dict[str, Any]) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client = self._mlflow.MlflowClient(uri)
        self._sent = Sent.read(folder / "mlflow.json", lambda: self._new_run(folder.name, config))
        self._client.update_run(self._sent.run, status="RUNNING")

    def _new_run(self, name: str, config: dict[str, Any]) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "detkit")
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        run = self._client.create_run(number, run_name=name).info.run_id
        parameters = [self._mlflow.entities.Param(key, str(value)) for key, value in _flat(config)]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(run, params=parameters[first : first + _PARAMETERS])
        return str(run)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        now = time.time_ns() // 1_000_000
        metric = self._mlflow.entities.Metric
        metrics = [metric(key, value, now, step) for key, value in self._sent.fresh(step, values).items()]
        self._client.log_batch(self._sent.run, metrics=metrics)

    def close(self, done: bool) -> None:
        self._client.set_terminated(self._sent.run, "FINISHED" if done else "KILLED")


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
