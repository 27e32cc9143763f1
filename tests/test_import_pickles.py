"""Pickles: arrays come out, nothing is executed."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.foreign.pickles import read_pickle


def write(path: Path, value: object, protocol: int) -> Path:
    with open(path, "wb") as file:
        pickle.dump(value, file, protocol)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values_come_out(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.array([1, 2, 258], dtype=">i4"),
        "half": np.array(0.5, dtype=np.float16),
        "scalar": np.float64(0.25),
    }
    plain = {"name": "R-50", "nested": [1, (2.5, None)], "flag": True}
    found = read_pickle(write(tmp_path / "x.pkl", OrderedDict({"model": arrays, **plain}), protocol))
    for name, array in arrays.items():
        assert torch.equal(
            found["model"][name], torch.from_numpy(np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("=")))
        )
    assert found["nested"] == [1, [2.5, None]] and found["name"] == "R-50" and found["flag"] is True


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.target}",)


def test_code_is_refused_and_did_not_run(tmp_path: Path) -> None:
    file = write(tmp_path / "x.pkl", {"model": Attack(tmp_path / "pwned")}, 2)
    with pytest.raises(ValueError, match=r"x\.pkl: not a file of plain weights.*system, which detkit refuses"):
        read_pickle(file)
    assert not (tmp_path / "pwned").exists()
    pickle.loads(file.read_bytes())  # the attack is real: without the guard it runs
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("value", [np.array([{"a": 1}]), np.array(["text"]), np.zeros(2, dtype=[("a", "f4")])])
def test_arrays_of_other_things_are_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no numbers"):
        read_pickle(write(tmp_path / "x.pkl", value, 2))


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "x.pkl", {"model": {"a": np.zeros(100)}}, 2).read_bytes()
    for length in (0, 1, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pkl").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pkl: "):
            read_pickle(tmp_path / "cut.pkl")
