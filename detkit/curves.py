"""Curves of runs: what metrics.jsonl holds, as a picture. A panel shows one quantity, a colour stands for one run."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from detkit.engine.log import Row, read_rows
from detkit.engine.run import METRICS
from detkit.files import write_atomically

# What is shown unless asked for, where a run has it: the whole losses, their parts, the rate, the scores.
USUAL = (
    *("loss", "loss_objectness", "loss_rpn_box", "loss_class", "loss_box"),
    *("lr", "AP", "AP50", "top1", "top5"),
)
NOT_CURVES = ("step", "epoch")
COLUMNS = 4


@dataclass(frozen=True)
class Run:
    """A name for the legend and the rows of a metrics.jsonl."""

    name: str
    rows: list[Row]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a key, without rows that lack it or hold null."""
        pairs = [(row["step"], row[key]) for row in self.rows if _is_number(row.get(key))]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def metrics(self) -> list[str]:
        """Keys that hold numbers, in the order in which they appear."""
        found = dict.fromkeys(key for row in self.rows for key, value in row.items() if _is_number(value))
        return [key for key in found if key not in NOT_CURVES]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs from their folders, or from files like metrics.jsonl, named by what tells their paths apart.

    Raises ValueError, naming the path, where there is no such file or it has no rows.
    """
    files = [path / METRICS if path.is_dir() else path for path in paths]
    runs = []
    for path, file, name in zip(paths, files, _names(files), strict=True):
        if not file.is_file():
            raise ValueError(f"{path}: expected a run folder with {METRICS}, or such a file; there is no {file}")
        rows = read_rows(file)
        if not rows:
            raise ValueError(f"{file} has no rows: has the run written any yet (train.log_every)?")
        runs.append(Run(name, rows))
    return runs


def _names(files: Sequence[Path]) -> list[str]:
    """The folder's name, with as many parents as tell all apart."""
    for depth in range(1, max(len(file.resolve().parts) for file in files) + 1):
        names = ["/".join(file.resolve().parent.parts[-depth:]) for file in files]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]


def draw_curves(path: Path, runs: Sequence[Run], metrics: Sequence[str] = ()) -> list[str]:
    """Draw `metrics` (the usual ones without) of all runs over the steps into a PNG; returns what was drawn.

    Losses on the validation split are dashed in the panel of the training's. Raises ValueError for a metric that no
    run has, naming those that there are.
    """
    known = list(dict.fromkeys(key for run in runs for key in run.metrics()))
    unknown = [metric for metric in metrics if metric not in known]
    if unknown:
        raise ValueError(f"no run has {', '.join(map(repr, unknown))}; they have {', '.join(known)}")
    # without the usual ones (a log of something else) everything that there is
    chosen = list(metrics) or [key for key in USUAL if key in known] or known
    if not chosen:
        raise ValueError("the rows of these runs hold no numbers but steps")
    write_atomically(path, _png(runs, chosen, with_validation=not metrics))
    return chosen


def _png(runs: Sequence[Run], chosen: Sequence[str], with_validation: bool) -> bytes:
    matplotlib.use("agg")
    from matplotlib.figure import Figure  # slow to import, so only when drawing

    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4.0 * columns, 3.0 * rows + 0.4), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, key in zip(panels, chosen, strict=False):
        _draw_panel(panel, runs, key, f"val_{key}" if with_validation else None)
    for panel in list(panels)[len(chosen) :]:
        panel.set_visible(False)
    handles, labels = _legend(runs, with_validation)
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2 * columns), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panel(panel: Any, runs: Sequence[Run], key: str, validation: str | None) -> None:
    for number, run in enumerate(runs):
        steps, values = run.curve(key)
        panel.plot(steps, values, color=f"C{number % 10}", linewidth=1.4, marker="o" if len(steps) < 30 else "", ms=3)
        if validation is not None:
            panel.plot(*run.curve(validation), color=f"C{number % 10}", linewidth=1.2, linestyle="--", marker="s", ms=3)
    panel.set_title(key, fontsize=10)
    panel.set_xlabel("step", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _legend(runs: Sequence[Run], with_validation: bool) -> tuple[list[Any], list[str]]:
    """A line for each run, and what dashes mean where there are some."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=f"C{number % 10}") for number in range(len(runs))]
    labels = [run.name for run in runs]
    if with_validation and any(key.startswith("val_loss") for run in runs for key in run.metrics()):
        handles.append(Line2D([], [], color="0.4", linestyle="--", marker="s", ms=3))
        labels.append("on the validation split")
    return handles, labels


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
