"""Receptive fields and multiply-adds by hand, the published ones, and `detkit backbones`."""

import json
import sys

import pytest
import torch
from torch import Tensor, nn

from detkit.backbones import BACKBONES
from detkit.build import build_backbone
from detkit.cli.backbones import backbone_table, describe
from detkit.cli.main import main
from detkit.summary import count_multiply_adds, count_parameters, receptive_fields, summarise


class Small(nn.Module):
    """Two branches, a pool and a dilated convolution; the picture also reaches the second level through a shortcut."""

    channels, strides = (4, 8), (2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, stride=2, padding=2)
        self.wide = nn.Conv2d(4, 4, (1, 7), padding=(0, 3))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.dilated = nn.Conv2d(4, 8, 3, padding=2, dilation=2)
        self.shortcut = nn.Conv2d(4, 8, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.stem(images).relu_()
        first = first + self.wide(first)
        x = self.pool(first)
        return [first, self.dilated(x) + self.shortcut(x)]


class Squeezed(Small):
    """The second level is scaled by a mean over the whole picture."""

    def forward(self, images: Tensor) -> list[Tensor]:
        first, second = super().forward(images)
        return [first, second * second.mean((2, 3), keepdim=True)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_small_net_by_hand(device: str) -> None:
    with torch.device(device):
        fields = receptive_fields(Small())
    # stem: 5, cells 2 px apart. The 1x7 branch adds 6 * 2 = 12 across, and is wider than the other branch.
    # pool: 2 * 2 = 4, cells 4 px apart. The dilated 3x3 spans 5 cells: 4 * 4 = 16, more than the shortcut's 0.
    assert [field.size for field in fields] == [(5, 17), (25, 37)]
    assert [field.stride for field in fields] == [(2, 2), (4, 4)]


def test_a_mean_over_the_picture_sees_all_of_it() -> None:
    assert [field.size[1] for field in receptive_fields(Squeezed())] == [17, float("inf")]


def test_multiply_adds_and_parameters_by_hand() -> None:
    # 16 x 12 px. stem: 8 * 6 cells * 4 channels * 5 * 5 * 3; wide: 48 * 4 * 7 * 4; then 4 * 3 cells:
    # dilated 12 * 8 * 9 * 4, shortcut 12 * 8 * 4
    assert count_multiply_adds(Small(), (16, 12)) == 48 * 300 + 48 * 112 + 12 * 288 + 12 * 32
    assert count_parameters(Small()) == (300 + 4) + (112 + 4) + (288 + 8) + (32 + 8)


# By hand; (k - 1) * distance of the cells for each layer:
# ResNet stem: 7 at 2 px, pool 3 at 2 px: 7 + 2 * 2 = 11 at 4 px.
#   18: layer1 four 3x3 at 4 px: 11 + 4 * 8 = 43. layer2: the first reads cells 4 px apart: 8, three at 8 px: 48: 99.
#       layer3: 16 + 3 * 32: 211. layer4: 32 + 3 * 64: 435.
#   50: layer1 three 3x3 at 4 px: 35. layer2: 8 + 3 * 16: 91. layer3: 16 + 5 * 32: 267. layer4: 32 + 2 * 64: 427.
#       With the stride in the first 1x1 every 3x3 reads the coarser cells: 35 + 4 * 16 = 99, + 6 * 32 = 291,
#       + 3 * 64 = 483, as published for ResNet-50; 1027 for 101 and 1507 for 152 layers.
# VGG-16: two 3x3 at 1 px: 5; pool of 2: 6; two at 2 px: 14; pool: 16; three at 4 px: 40; pool: 44 at 8 px;
#   + 3 * 16 = 92; pool: 100 at 16 px; + 3 * 32 = 196; pool: 212.
# AlexNet: 11 at 4 px; pool of 3: 19 at 8 px; 5x5: 51; pool: 67 at 16 px; three 3x3: + 3 * 32 = 163.
# Published: Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill 2019, table 1
#   (for AlexNet after one more pool, 195).
FIELDS = {
    "resnet18": (43, 99, 211, 435),
    "resnet50": (35, 91, 267, 427),
    "vgg16_last": (212,),
    "alexnet_last": (163,),
    "mobilenet_v1_last": (315,),
    "inception_v3_last": (1311,),
    "inception_v4_last": (2071,),
    "inception_resnet_v2_last": (3039,),
}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_by_hand_and_as_published(name: str) -> None:
    levels = summarise(name.removesuffix("_last")).levels
    assert tuple(level.receptive_field for level in levels)[-len(FIELDS[name]) :] == FIELDS[name]


@pytest.mark.parametrize(("depth", "sizes"), [(50, (35, 99, 291, 483)), (101, (35, 99, 835, 1027)), (152, (1507,))])
def test_the_stride_in_the_first_1x1_widens_the_field(depth: int, sizes: tuple[int, ...]) -> None:
    with torch.device("meta"):
        fields = receptive_fields(build_backbone(f"resnet{depth}", stride_in_1x1=True))
    assert tuple(field.size[0] for field in fields)[-len(sizes) :] == sizes


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_strides_of_the_graph_are_those_declared(name: str) -> None:
    with torch.device("meta"):
        model = build_backbone(name)
    fields = receptive_fields(model)
    assert [field.stride for field in fields] == [(stride, stride) for stride in model.strides]
    sides = [max(field.size) for field in fields]
    assert sides == sorted(sides)
    assert all(side > stride for side, stride in zip(sides, model.strides, strict=True))


def test_the_numbers_of_resnet50() -> None:
    row = summarise("resnet50")
    assert row.classifier_parameters == 25_557_032  # torchvision's
    assert row.parameters == 25_557_032 - 2048 * 1000 - 1000
    # He et al. give 3.8 G in table 1 for the stride in the first 1x1; with the stride in the 3x3 it is 4.09 G
    assert row.classifier_multiply_adds == row.multiply_adds_224 + 2048 * 1000
    assert round(row.multiply_adds_224 / 1e9, 2) == 4.09
    # convolutions without any border effect grow with the number of cells: 25 * 34 instead of 7 * 7
    assert row.multiply_adds_800x1088 * 49 == row.multiply_adds_224 * 25 * 34
    assert row.weights == "imagenet (torchvision)"


def test_the_table_has_a_row_for_each_and_times_them() -> None:
    rows = describe(["resnet18", "detnet59"], (64, 2))
    for row in rows:
        assert row.latency is not None
        assert 0 < row.latency.milliseconds < 60_000
        assert (row.latency.side, row.latency.runs) == (64, 2)
        assert row.latency.threads == torch.get_num_threads()
    assert backbone_table(rows).row_count == 2
    assert rows[1].weights.startswith("none")


def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `detkit backbones ...`."""
    monkeypatch.setattr(sys, "argv", ["detkit", "backbones", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return (code if isinstance(code, int) else 0, *capfd.readouterr())


def test_json_is_printed_alone(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("detnet59", "resnet18")
    chosen = [word for name in names for word in ("--name", name)]
    status, out, err = run(capfd, monkeypatch, "--json", "--no-latency", *chosen)
    assert (status, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert tuple(rows) == names
    assert [level["stride"] for level in rows["detnet59"]["levels"]] == [4, 8, 16, 16, 16]
    assert [level["receptive_field"] for level in rows["resnet18"]["levels"]] == [43, 99, 211, 435]
    assert rows["resnet18"]["latency"] is None


def test_the_table_is_not_cut_off(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = run(capfd, monkeypatch, "--name", "resnet18", "--side", "64", "--runs", "1")
    assert status == 0
    for text in ("resnet18", "11.18", "1.81", "31.5", "11.69", "211", "(torchvision)", "one picture of 64x64"):
        assert text in out
    assert "…" not in out


def test_a_timm_net_has_a_row(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    status, out, err = run(capfd, monkeypatch, "--json", "--no-latency", "--name", "timm/resnet18")
    assert status == 0, err
    (row,) = json.loads(out)
    assert [level["receptive_field"] for level in row["levels"]] == [43, 99, 211, 435]
    assert row["classifier_input"] is None


def test_an_unknown_name_lists_the_names(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run(capfd, monkeypatch, "--name", "resnet18", "--name", "resnet5")
    assert (status, out) == (2, "")
    assert "unknown backbone 'resnet5'" in err
    assert "detnet59" in err
