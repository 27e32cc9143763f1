"""Checkpoints and run folders: whole or not at all, never executing, never over another run."""

import json
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.engine.checkpoint import (
    best_weights,
    config_differences,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from detkit.engine.run import describe_run, new_run_folder
from detkit.files import write_atomically


def state(value: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "model": {"weight": torch.full((50, 50), value)},
        "config": {"train": {"lr": 0.1}},
        "classes": ["stop", "yield"],
        "category_ids": [3, 7],
        **more,
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, state(2.0, ema={"weight": torch.zeros(1)}, training={"step": 5, "best": None}))
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"]["weight"], torch.full((50, 50), 2.0))
    assert (loaded["format"], loaded["version"]) == ("detkit checkpoint", 1)
    assert (loaded["classes"], loaded["category_ids"]) == (["stop", "yield"], [3, 7])
    assert loaded["training"] == {"step": 5, "best": None}
    assert best_weights(loaded) is loaded["ema"]
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, state())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"last\.pth: "):
        load_checkpoint(path)


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, state())
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((4,), 1.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.pth: .*(damaged|CRC)"):
        load_checkpoint(path)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch_legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path: Path, kind: str) -> None:
    path, made = tmp_path / "evil.pth", tmp_path / "made"
    evil = {**state(), "format": "detkit checkpoint", "version": 1, "config": Bomb(made)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(ValueError, match=r"evil\.pth: "):
        load_checkpoint(path)
    assert not made.exists()


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(ValueError, match="a folder, not a checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="not a detkit checkpoint"):
        load_checkpoint(tmp_path / "text.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"model\.backbone\.weights"):
        load_checkpoint(tmp_path / "other.pth")
    torch.save({**state(), "format": "detkit checkpoint", "version": 99}, tmp_path / "new.pth")
    with pytest.raises(ValueError, match="upgrade"):
        load_checkpoint(tmp_path / "new.pth")


@pytest.mark.parametrize("key", ["model", "config", "classes", "category_ids"])
def test_a_missing_key_is_named_on_saving_and_loading(tmp_path: Path, key: str) -> None:
    incomplete = {name: value for name, value in state().items() if name != key}
    with pytest.raises(ValueError, match=f"`{key}`"):
        save_checkpoint(tmp_path / "a.pth", incomplete)
    torch.save({**incomplete, "format": "detkit checkpoint", "version": 1}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=f"`{key}`"):
        load_checkpoint(tmp_path / "b.pth")


DISK_FULL = """
import resource, sys
from pathlib import Path
import torch
from detkit.engine.checkpoint import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
big = {"model": {"weight": torch.zeros(100_000)}, "config": {}, "classes": [], "category_ids": []}
try:
    save_checkpoint(Path(sys.argv[1]) / "last.pth", big, Path(sys.argv[1]) / "last.prev.pth")
except OSError as error:
    print("refused:", error)
"""


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pth", state(3.0))
    before = (tmp_path / "last.pth").read_bytes()
    run = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "refused:" in run.stdout
    assert "cannot write the checkpoint (File too large)" in run.stdout
    assert "the checkpoint before it is intact" in run.stdout
    assert (tmp_path / "last.pth").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_the_newest_good_checkpoint_is_taken(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    last, previous = tmp_path / "last.pth", tmp_path / "last.prev.pth"
    for value in (1.0, 2.0):
        save_checkpoint(last, state(value), previous)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == last
    assert found[1]["model"]["weight"][0, 0] == 2.0
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"last\.pth: not a detkit checkpoint, or cut off.*continuing from"):
        found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == previous
    assert found[1]["model"]["weight"][0, 0] == 1.0
    save_checkpoint(last, state(4.0), previous)  # the damaged one must not take the good one's place
    assert load_checkpoint(previous)["model"]["weight"][0, 0] == 1.0
    last.write_bytes(b"")
    previous.write_bytes(b"")
    with pytest.raises(ValueError, match="start a new run"):
        newest_checkpoint(tmp_path)


def test_a_failing_write_leaves_the_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def break_off(file: Any) -> None:
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, break_off)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_config_differences_name_dotted_keys() -> None:
    saved = {"train": {"lr": 0.1, "seed": 0}, "data": {"root": "a"}}
    now = {"train": {"lr": 0.2, "seed": 0}, "data": {"root": "a"}, "new": 1}
    assert config_differences(saved, now) == ["new: None -> 1", "train.lr: 0.1 -> 0.2"]


def test_a_run_never_takes_the_folder_of_another(tmp_path: Path) -> None:
    output = tmp_path / "runs" / "fpn"
    assert new_run_folder(output) == output
    assert new_run_folder(output) == tmp_path / "runs" / "fpn-2"
    (tmp_path / "runs" / "fpn-3").write_text("a file")
    (tmp_path / "runs" / "fpn-4").mkdir()
    assert new_run_folder(output) == tmp_path / "runs" / "fpn-4"  # empty: may be used
    assert new_run_folder(output) == tmp_path / "runs" / "fpn-5"
    assert (tmp_path / "runs" / "fpn-3").read_text() == "a file"


def test_an_impossible_run_folder_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write the run folder .*train\.output"):
        new_run_folder(tmp_path / "file" / "run")


def test_a_run_folder_explains_itself(tmp_path: Path) -> None:
    command = ["python", "tools/train_det.py", "fpn_r50", "data.root=my pictures", "train.output=runs/a", "--resume"]
    describe_run(tmp_path, {"train": {"lr": 0.1}}, ["stop"], command, ["detkit eval best.pth"], processes=2)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["command"] == command
    assert json.loads((tmp_path / "config.json").read_text()) == {"train": {"lr": 0.1}}
    assert json.loads((tmp_path / "classes.json").read_text()) == ["stop"]
    readme = (tmp_path / "README.md").read_text()
    assert "torchrun started each of its 2 processes as" in readme
    assert f"    {shlex.join(command)}\n" in readme
    assert f"    python tools/train_det.py fpn_r50 'data.root=my pictures' train.output={tmp_path} --resume\n" in readme
    assert "    detkit eval best.pth\n" in readme
