"""README.md of a run folder: how the run was started, how to go on, what each file is."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from detkit import __version__

FILES = {
    "best.pth": "the weights of the best evaluation, with config and class names: to evaluate, to predict",
    "last.pth": "the newest checkpoint, with all that going on takes; last.prev.pth is the one before",
    "metrics.jsonl": "a JSON object a line: losses, learning rate and speed, or the metrics of an evaluation",
    "sheet_STEP.jpg": "a detector's ground truth beside its predictions, after each evaluation",
    "config.json": "the config as run, with all defaults",
    "classes.json": "the class names, in the order of the labels",
    "environment.json": "command, folder, versions, machine, and the git state of the folder it was started in",
    "nonfinite_STEP.json": "a step whose loss was not finite: its pictures, boxes and losses",
    "tensorboard/": "the metrics for `tensorboard --logdir`; wandb/ and mlflow.db are those of other loggers",
    "launch.json": "which torchruns started the run, so that it goes on here when they start it again",
}


def run_readme(folder: Path, command: Sequence[str], uses: Sequence[str], processes: int = 1) -> str:
    """The text for a run in `folder`.

    `command`: program and arguments, as each of so many `processes` got them. `uses`: command lines that take the run's
    checkpoints.
    """
    started = "It was started as" if processes == 1 else f"torchrun started each of its {processes} processes as"
    going_on = [*_without_folder(command), f"train.output={folder}", "--resume"]
    return "\n".join(
        [
            f"# {folder.name}",
            "",
            f"A run of detkit {__version__}. {started}",
            "",
            f"    {shlex.join(command)}",
            "",
            f"in {Path.cwd()}. From there, after a stop of any kind, it goes on to the same bits by",
            "",
            f"    {shlex.join(going_on)}",
            "",
            "and its results are used by",
            "",
            *(f"    {line}" for line in uses),
            "",
            "| file | what it is |",
            "| --- | --- |",
            *(f"| `{name}` | {what} |" for name, what in FILES.items()),
            "",
        ]
    )


def _without_folder(command: Sequence[str]) -> list[str]:
    return [part for part in command if part != "--resume" and not part.startswith("train.output=")]
