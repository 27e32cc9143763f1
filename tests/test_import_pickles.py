"""Pickles: arrays come out, nothing is executed."""

import argparse
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from detkit.foreign.reading import kind_of, read_objects


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
    found = read_objects(write(tmp_path / "x.pkl", OrderedDict({"model": arrays, **plain}), protocol))
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
    with pytest.raises(ValueError, match=r"x\.pkl: not a file of weights alone.*system, which detkit refuses"):
        read_objects(file)
    assert not (tmp_path / "pwned").exists()
    pickle.loads(file.read_bytes())  # the attack is real: without the guard it runs
    assert (tmp_path / "pwned").exists()


class History(dict[str, int]):
    """A class that is not there when its objects are read; it has items, a state and a list of its own."""


class Append(list[int]):
    """Likewise."""


@pytest.mark.parametrize("new", [True, False])
def test_what_training_scripts_keep_beside_the_weights_is_read_over(
    new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("elsewhere")
    for kind in (History, Append):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", "elsewhere")
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    history = History(a=1)
    history.__dict__["log"] = np.arange(3.0)
    weight = torch.arange(12.0).view(3, 4)
    state = {
        "w": weight,
        "t": weight.t()[1:],
        "half": weight.half(),
        "flag": torch.tensor(True),
        "p": torch.nn.Parameter(weight),
    }
    others = {
        "args": argparse.Namespace(lr=0.1, path=tmp_path),
        "log": [history, Append([1, 2]), {Append}, np.float64(2)],
    }
    torch.save({"model": OrderedDict(state), **others}, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    monkeypatch.delitem(sys.modules, "elsewhere")
    found = read_objects(tmp_path / "x.pth")
    assert found["model"].keys() == state.keys()
    for name, value in state.items():
        assert found["model"][name].dtype == value.dtype and torch.equal(found["model"][name], value)
    assert "elsewhere" not in sys.modules
    assert kind_of(found["args"]) == "an object argparse.Namespace" and not vars(found["args"])
    content = (tmp_path / "x.pth").read_bytes()
    for length in (10, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pth").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pth: .*truncated"):
            read_objects(tmp_path / "cut.pth")


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("new", [True, False])
def test_files_of_torch_call_nothing(new: bool, tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    for call, name in (
        (Call(eval, "1"), "eval"),
        (Call(getattr, "a", "upper"), "getattr"),
        (Call(os.mkdir, tmp_path / "pwned"), "mkdir"),
    ):
        torch.save({"model": call}, file, _use_new_zipfile_serialization=new)
        with pytest.raises(ValueError, match=rf"x\.pth: .*{name}, which detkit refuses"):
            read_objects(file)
    # a function that is not on the list is not called either
    torch.save(
        {"a": Call(Path.touch, tmp_path / "pwned"), "w": torch.ones(2)}, file, _use_new_zipfile_serialization=new
    )
    try:
        assert torch.equal(read_objects(file)["w"], torch.ones(2))
    except ValueError as error:  # protocols before 4 look methods up by getattr
        assert "getattr, which detkit refuses" in str(error)
    assert not (tmp_path / "pwned").exists()


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(content.replace(b"M\xe8\x03\x85", b"M\xe9\x03\x85"))  # (1000,) to (1001,)
    assert (tmp_path / "x.pth").read_bytes() != content
    with pytest.raises(ValueError, match=r"x\.pth: cannot be read"):
        read_objects(tmp_path / "x.pth")


@pytest.mark.parametrize("value", [np.array([{"a": 1}]), np.array(["text"]), np.zeros(2, dtype=[("a", "f4")])])
def test_arrays_of_other_things_are_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no numbers"):
        read_objects(write(tmp_path / "x.pkl", value, 2))


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "x.pkl", {"model": {"a": np.zeros(100)}}, 2).read_bytes()
    for length in (0, 1, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pkl").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pkl: "):
            read_objects(tmp_path / "cut.pkl")
