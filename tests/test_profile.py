"""`detkit profile`: parts by a clock that is turned by hand, multiply-adds by hand, and the command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from detkit import profiling
from detkit.cli.profile import parse_size
from detkit.convolution import FastConv2d
from detkit.data.resize import ResizeKind, resized_size
from detkit.profiling import Meter, flop_counter, matrix_peak, profile_detector, stored_size
from tests.conftest import TINY, Outcome
from tests.tiny_detector import tiny_detector

PREDICTION = ["load", "resize", "backbone", "neck", "RPN: proposals", "RPN: convolutions", "RoI pooling", "box head"]
PREDICTION += ["decoding, NMS"]


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_both_gradients_of_a_convolution_count_as_much_as_it(groups: int) -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    with flop_counter(conv) as counter:
        conv(torch.randn(2, 8, 5, 6, requires_grad=True)).sum().backward()
    multiply_adds = 2 * 8 * 5 * 6 * 9 * (8 // groups)  # pictures, channels, rows, columns, taps, inputs of a channel
    assert counter.get_total_flops() == 3 * 2 * multiply_adds


def test_a_convolution_in_tiles_counts_as_by_its_definition() -> None:
    conv = FastConv2d(nn.Conv2d(256, 256, 3, padding=1, bias=False))
    with torch.no_grad(), flop_counter(conv) as counter:
        conv(torch.zeros(1, 256, 48, 50))
    assert counter.get_total_flops() == 2 * 48 * 50 * 9 * 256 * 256


class Turned:
    """A clock that goes forward when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """Takes some time on a clock."""

    def __init__(self, clock: Turned, seconds: float, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.clock, self.seconds, self.inner = clock, seconds, inner

    def forward(self) -> None:
        self.clock.now += self.seconds
        if self.inner is not None:
            self.inner()


def test_a_part_within_a_part_counts_once() -> None:
    clock = Turned()
    inner = Slow(clock, 2)
    outer = Slow(clock, 5, inner)
    meter = Meter(clock)
    with meter.modules({"outer": outer, "inner": inner}), meter.part("all"):
        clock.now += 1
        outer()
        inner()
    assert meter.spent == {"all": 1, "outer": 5, "inner": 4}
    outer()  # the hooks are gone
    assert sum(meter.spent.values()) == 10


def test_multiply_adds_by_hand() -> None:
    result = profile_detector(tiny_detector(), (64, 96), runs=1)
    parts = {part.name: part.multiply_adds for part in result.parts}
    assert list(parts) == PREDICTION
    cells = 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3  # strides 4, 8, 16, 32; ResNet-18 has 64, 128, 256, 512 channels
    lateral = 16 * 24 * 64 + 8 * 12 * 128 + 4 * 6 * 256 + 2 * 3 * 512
    assert parts["neck"] == 32 * lateral + cells * 9 * 32 * 32
    assert parts["RPN: convolutions"] == (cells + 1 * 2) * (9 * 32 * 32 + 32 * 3 * 5)  # 3 anchors, 1 + 4 values
    assert result.multiply_adds == sum(parts.values())
    assert result.seconds == pytest.approx(sum(part.seconds for part in result.parts))
    assert all(part.seconds > 0 for part in result.parts)


def test_a_training_step_computes_about_three_times_as_much() -> None:
    size = (64, 96)
    step = profile_detector(tiny_detector(), size, train=True, runs=1)
    once = {part.name: part.multiply_adds for part in profile_detector(tiny_detector(), size, runs=1).parts}
    parts = {part.name: part.multiply_adds for part in step.parts}
    assert {name: parts[name] for name in ("backbone", "neck")} == {name: once[name] for name in ("backbone", "neck")}
    backward = parts.pop("backward, update")
    # twice the forward pass, but for the pictures, which need no gradient; weight gradients as products of matrices
    # (convolution.py), where the processor has them, also multiply the padding
    stem = 32 * 48 * 64 * 3 * 49
    assert backward == pytest.approx(2 * sum(parts.values()) - stem, rel=0.1)


def test_the_peak_is_no_more_than_a_machine_gives() -> None:
    assert 0.1 < matrix_peak(torch.device("cpu"), torch.float32, side=256, runs=2) < 1e6


def test_a_slow_product_is_measured_on_smaller_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []

    def seconds(device: torch.device, dtype: torch.dtype, side: int, runs: int) -> list[float]:
        sides.append(side)
        return [2 * side**3 / 1e9] * runs  # of a machine with 1 GFLOP/s, as when bfloat16 is emulated

    monkeypatch.setattr(profiling, "_product_seconds", seconds)
    assert matrix_peak(torch.device("cpu"), torch.bfloat16) == pytest.approx(1)
    assert sides == [256, 512, 512]  # 0.27 s; the next would take 2.1


@pytest.mark.parametrize("kind", ["opencv", "pillow", "torch"])
@pytest.mark.parametrize("size", [(800, 1088), (64, 64), (33, 33), (1600, 2001), (40, 9000), (9000, 40), (33, 32767)])
def test_the_stored_picture_becomes_what_is_asked_for(size: tuple[int, int], kind: ResizeKind) -> None:
    assert resized_size(*stored_size(size, kind), min(size), max(size), kind) == size


def test_the_command_on_a_config(command: Callable[..., Outcome]) -> None:
    shrink = [word for word in TINY[1:] if word.startswith("model.")]
    outcome = command("profile", "fpn_r50", *shrink, "--size", "64x96", "--runs", "1", "--train", "--batch", "2")
    assert outcome.status == 0, outcome.err
    assert outcome.out.index("box head") < outcome.out.index("sampling, losses") < outcome.out.index("backward, update")
    assert "median of 1 run on cpu" in outcome.out
    assert "products by definition" in " ".join(outcome.out.split("\n")[-3:])  # in one line, also of a narrow table
    for text in ("training step of fpn_r50, 2 x 64x96", "backbone", "backward, update", "of the peak", "float32"):
        assert text in outcome.out


def test_json_on_a_checkpoint(command: Callable[..., Outcome], trained: Path) -> None:
    outcome = command("profile", trained / "best.pth", "--size", "64x64", "--runs", "1", "--json")
    assert outcome.status == 0, outcome.err
    result = json.loads(outcome.out)
    assert [part["name"] for part in result["parts"]] == PREDICTION
    assert result["peak"] > 0


@pytest.mark.parametrize(
    "text", ["800", "800x", "0x0", "32x32", "-40x50", "axb", "800x1088x3", "100000x100000", "800x32768"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="--size: expected HEIGHTxWIDTH"):
        parse_size(text)


def test_mistakes_are_one_line(command: Callable[..., Outcome], tmp_path: Path) -> None:
    for arguments, words in (
        (("fpn_r5",), "fpn_r50"),
        ((tmp_path / "none.pth",), "none.pth"),
        (("fpn_r50", "--precision", "float16"), "float16"),
        (("fpn_r50", "--device", "cuda:9"), "cuda:9"),
        (("fpn_r50", "--device", "meta"), "device 'meta' cannot be used here"),
        (("fpn_r50", "--train", "train.precision=float64"), "train.precision"),
    ):
        outcome = command("profile", *arguments)
        assert outcome.status == 2
        assert words in outcome.err
        assert "Traceback" not in outcome.err


def test_memory_that_runs_out_is_one_line(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        torch.empty(2**60)  # torch's own error

    monkeypatch.setattr("detkit.cli.profile.profile_detector", too_large)
    shrink = [word for word in TINY[1:] if word.startswith("model.")]
    outcome = command("profile", "fpn_r50", *shrink, "--size", "20000x20000", "--batch", "3")
    assert outcome.status == 1
    assert "out of memory with 3 x 20000x20000 px; lower --batch or --size" in outcome.err


def test_training_is_profiled_in_the_precision_of_the_config(
    command: Callable[..., Outcome], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*_: object, precision: str, **__: object) -> None:
        asked.append(precision)
        raise ValueError("not now: it is emulated")

    monkeypatch.setattr("detkit.cli.profile.profile_detector", refuse)
    checkpoint = trained / "best.pth"
    command("profile", checkpoint, "--train", "train.precision=bfloat16")
    command("profile", checkpoint, "--train", "train.precision=bfloat16", "--precision", "float32")
    command("profile", checkpoint, "train.precision=bfloat16", "--precision", "float32")
    assert asked == ["bfloat16", "float32", "float32"]
