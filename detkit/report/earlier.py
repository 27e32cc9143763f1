"""The numbers of earlier runs: files of `detkit eval --json`, and what training wrote down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detkit.engine.log import read_rows
from detkit.engine.run import METRICS
from detkit.evaluation.coco import COCO_METRICS


@dataclass(frozen=True)
class Earlier:
    """What a run scored; classes by name, where the file has them."""

    name: str
    metrics: dict[str, float]  # COCO's names; -1 where there is nothing to find
    classes: dict[str, float]  # AP
    data: tuple[int, int] | None = None  # numbers of pictures and of boxes, where the file has them


def read_earlier(path: Path) -> Earlier:
    """The scores of a file of `detkit eval --json`, of a run folder or of its metrics.jsonl (there the best AP's).

    Raises ValueError, naming it, for anything else.
    """
    if path.is_dir() or path.suffix == Path(METRICS).suffix:
        return _of_run(path, path / METRICS if path.is_dir() else path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--compare: cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text
        raise ValueError(f"--compare: {path} is no JSON ({error}); {_EXPECTED}") from None
    metrics = content.get("metrics") if isinstance(content, dict) else None
    if not isinstance(metrics, dict) or not _has_scores(metrics):
        raise ValueError(f"--compare: {path} has no COCO metrics; {_EXPECTED}")
    classes = content.get("classes")
    scores = {
        str(name): float(score["AP"])
        for name, score in (classes.items() if isinstance(classes, dict) else ())
        if isinstance(score, dict) and _is_score(score.get("AP"))
    }
    return Earlier(path.stem, _scores(metrics), scores, _data(content.get("data")))


_EXPECTED = f"expected a file of `detkit eval --json`, a run folder or its {METRICS}"


def _of_run(path: Path, file: Path) -> Earlier:
    if not file.is_file():
        raise ValueError(f"--compare: there is no {file}; {_EXPECTED}")
    rows = [row for row in read_rows(file) if _has_scores(row)]
    if not rows:
        raise ValueError(f"--compare: {file} has no evaluation; {_EXPECTED}")
    best = max(rows, key=lambda row: float(row["AP"]))
    return Earlier(f"{file.resolve().parent.name}, step {best['step']}", _scores(best), {})


def _data(said: Any) -> tuple[int, int] | None:
    pictures, boxes = (said.get("pictures"), said.get("boxes")) if isinstance(said, dict) else (None, None)
    return (pictures, boxes) if isinstance(pictures, int) and isinstance(boxes, int) else None


def _scores(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in COCO_METRICS if _is_score(row.get(name))}


def _has_scores(row: dict[str, Any]) -> bool:
    return _is_score(row.get("AP"))


def _is_score(value: Any) -> bool:
    """-1 is COCO's word for no objects."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1
