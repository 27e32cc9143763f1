"""`--resume` and `--resume-anyway` of the commands that train."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from detkit.cli.output import say
from detkit.engine.distributed import World
from detkit.engine.resume import Resumed, resumed_state

Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the folder train.output.")]
ResumeAnyway = Annotated[
    bool,
    typer.Option("--resume-anyway", help="As --resume, also where config or data differ from the run's; says how."),
]
# What may differ between a run and its continuation without changing what it computes.
HARMLESS = (
    *("data.workers", "data.worker_timeout", "data.root", "data.train_annotations", "data.train_images"),
    *("data.val_annotations", "data.val_images", "data.train_folder", "data.val_folder"),
    *("train.output", "train.checkpoint_minutes", "train.log_every", "train.loggers"),
    *("train.skip_nonfinite", "train.distributed_timeout_seconds"),
)


def resume_run(
    output: Path, config: dict[str, Any], fingerprint: str, world: World, anyway: bool, console: Console
) -> Resumed | None:
    """The checkpoint to go on from, None to start at step 0 in `output`. Raises ValueError as `resumed_state` does."""
    resumed = resumed_state(output, config, fingerprint, HARMLESS, world.size, anyway)
    if resumed is None:
        say(console, f"no checkpoint in {output} yet: starting at step 0 there")
    elif resumed.differences:
        say(console, f"going on although it is not the same run: {'; '.join(resumed.differences)}")
    return resumed
