"""The run folder of several processes: which one it is, who writes it, and its copies on machines with their own disks.

Owners write: rank 0, and the first rank of each machine that does not see the folder of a lower one. All owners write
the same, so that losing any one machine loses nothing.
"""

import json
import os
import re
import secrets
import socket
from pathlib import Path

from detkit.engine.checkpoint import BEST, LAST, PREVIOUS, newest_checkpoint
from detkit.engine.distributed import World
from detkit.engine.loggers import NOTES
from detkit.engine.run import DESCRIPTION, LAUNCH, METRICS
from detkit.files import write_atomically, write_json


def find_run(output: Path, resume: bool, world: World) -> Path | None:
    """The folder of the run to go on with, the same on all ranks; None to start a new run.

    It is `output` when the user says so, else the one in which these processes were before torchrun started them again.
    The newest good checkpoint of any machine is then on all. Raises ValueError when all are damaged.
    """
    folder = output if resume else _started_before(output, world)
    if folder is not None and world.size > 1:
        _hand_over_newest(folder, world)
    return folder


def enter_run(folder: Path, world: World) -> bool:
    """Whether this rank writes the run folder; its owners note which torchruns started the run."""
    owner = owns_folder(folder, world)
    launches = world.broadcast(world.gather(this_launch())) or []
    with world.together():
        if owner and any(launches):
            write_json(folder / LAUNCH, sorted({launch for launch in launches if launch}))
    return owner


def owns_folder(folder: Path, world: World) -> bool:
    """Whether this rank is the lowest of those that see the same `folder`, which is made where it is missing."""
    if world.local_size == world.size:
        return world.rank == 0
    # Network file systems remember for a while that a name was not there; nobody has asked for this one.
    secret = world.broadcast(secrets.token_hex(8))
    mine = folder / f".{secret}-{world.rank}.tmp"
    with world.together():
        if world.local_rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            mine.touch()
    seen = [rank for rank in range(world.rank) if (folder / f".{secret}-{rank}.tmp").exists()]
    world.barrier()
    mine.unlink(missing_ok=True)
    return world.local_rank == 0 and not seen


def this_launch() -> str | None:
    """Which torchrun started this process, the same after a restart and never again; None without torchrun."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id is None:
        return None
    parent = os.getppid()
    try:
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # not Linux
        started = "0"
    return f"{run_id}@{socket.gethostname()}:{parent}:{started}"


def _started_before(output: Path, world: World) -> Path | None:
    """Of `output`, output-2, ... the folder that notes this launch, on any machine."""
    launch, own = this_launch(), None
    pattern = re.compile(rf"{re.escape(output.name)}(-\d+)?")
    if launch is not None and output.parent.is_dir():
        names = sorted(path.name for path in output.parent.iterdir() if pattern.fullmatch(path.name))
        own = next((name for name in names if launch in _launches(output.with_name(name))), None)
    found = world.broadcast(world.gather(own)) or []
    return next((output.with_name(name) for name in found if name is not None), None)


def _launches(folder: Path) -> list[str]:
    try:
        noted = json.loads((folder / LAUNCH).read_text())
    except (OSError, ValueError):
        return []
    return noted if isinstance(noted, list) else []


def _hand_over_newest(folder: Path, world: World) -> None:
    """Bring all copies of a run folder to the state of that with the newest good checkpoint."""
    owner = owns_folder(folder, world)
    last, step, problem = LAST, -1, None
    if owner:
        try:
            found = newest_checkpoint(folder)
            if found is not None:
                last, step = found[0].name, found[1].get("training", {}).get("step", 0)
        except ValueError as error:
            problem = error
    steps = [row[0] for row in world.all_gather([step])]
    if max(steps) < 0:
        world.share(problem)
    elif world.total([owner])[0] > 1:
        _copy_files(folder, last, owner, steps.index(max(steps)), world)
    world.barrier()


def _copy_files(folder: Path, last: str, owner: bool, source: int, world: World) -> None:
    """Write the files of rank `source`, whose newest checkpoint is called `last` there, to the other owners' copies."""
    last = world.broadcast(last, source)
    for name in (last, BEST, METRICS, *DESCRIPTION, *NOTES):
        path = folder / name
        content = world.broadcast_bytes(path.read_bytes() if world.rank == source and path.exists() else b"", source)
        with world.together():
            if owner and world.rank != source and content:
                is_last = name == last
                write_atomically(folder / LAST if is_last else path, content, folder / PREVIOUS if is_last else None)
