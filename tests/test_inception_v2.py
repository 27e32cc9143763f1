"""Inception V2, of which there is no other copy: table 1 of the paper row by row, figures 5 to 8 and 10, costs."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detkit.backbones.inception_blocks import ConvNorm, Parallel
from detkit.backbones.inception_v2 import InceptionV2, InceptionV2Classifier
from tests.reference import outputs_at

# Layer, (kernel, stride) and output (channels, side) at 299. Table 1 gives the *input* of each row, so that the output
# is what the next row says. The reductions have no rows of their own: section 6 places them after the 35x35 and the
# 17x17 blocks, whose rows give the input of the first block only.
TABLE = (
    ("conv1", (3, 2), (32, 149)),
    ("conv2", (3, 1), (32, 147)),
    ("conv3", (3, 1), (64, 147)),
    ("pool", (3, 2), (64, 73)),
    ("conv4", (3, 1), (80, 71)),
    ("conv5", (3, 2), (192, 35)),
    ("conv6", (3, 1), (288, 35)),
    ("inception_a.0", None, (288, 35)),
    ("inception_a.1", None, (288, 35)),
    ("inception_a.2", None, (288, 35)),
    ("reduction_a", None, (768, 17)),
    ("inception_b.0", None, (768, 17)),
    ("inception_b.1", None, (768, 17)),
    ("inception_b.2", None, (768, 17)),
    ("inception_b.3", None, (768, 17)),
    ("inception_b.4", None, (768, 17)),
    ("reduction_b", None, (1280, 8)),
    ("inception_c.0", None, (2048, 8)),
    ("inception_c.1", None, (2048, 8)),
)
ONE, THREE = (1, 1), (3, 3)
WIDE7, TALL7 = (1, 7), (7, 1)
FAN3 = frozenset({(1, 3), (3, 1)})


@pytest.fixture(scope="module")
def empty() -> InceptionV2Classifier:
    """The classifier without values, for shapes."""
    with torch.device("meta"):
        return InceptionV2Classifier().eval()


def pictures(side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta")


def test_table_1_row_by_row(empty: InceptionV2Classifier) -> None:
    names = [name for name, _, _ in TABLE]
    logits, outputs = outputs_at(empty, names, pictures(299))
    for (name, window, (channels, side)), output in zip(TABLE, outputs, strict=True):
        assert output.shape == (1, channels, side, side), name
        if window is not None:
            layer = empty.get_submodule(name)
            layer = layer.conv if isinstance(layer, ConvNorm) else layer
            assert (_pair(layer.kernel_size), _pair(layer.stride)) == tuple(_pair(number) for number in window), name
            assert _pair(layer.dilation) == ONE
    assert len(list(empty.children())) == len({name.split(".")[0] for name in names}) + 2  # + fc and auxiliary
    assert empty.fc.weight.shape == (1000, 2048)
    assert logits.shape == (1, 1000)


def _pair(number: int | tuple[int, int]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else number


def _branches(block: nn.Module) -> list[list[object]]:
    """The kernels (with "/2" where the stride is 2) along each branch; a frozenset where it fans out."""
    return [list(_kernels(branch)) for branch in block.children()]


def _kernels(branch: nn.Module) -> Iterator[object]:
    if isinstance(branch, Parallel):
        yield frozenset(kernel for inner in branch.children() for kernel in _kernels(inner))
    elif isinstance(branch, nn.Conv2d):
        yield branch.kernel_size if branch.stride == ONE else (branch.kernel_size, "/2")
    elif isinstance(branch, nn.AvgPool2d | nn.MaxPool2d):
        yield "pool" if branch.stride == 1 else "pool/2"
    else:
        for child in branch.children():
            yield from _kernels(child)


def test_blocks_are_those_of_the_figures(empty: InceptionV2Classifier) -> None:
    """Figure 5 (35x35), figure 6 with n = 7 (17x17), figure 7 (8x8), and figure 10 between them."""
    figures = {
        "inception_a": [[ONE], [ONE, THREE], [ONE, THREE, THREE], ["pool", ONE]],
        "inception_b": [[ONE], [ONE, WIDE7, TALL7], [ONE, WIDE7, TALL7, WIDE7, TALL7], ["pool", ONE]],
        "inception_c": [[ONE], [ONE, FAN3], [ONE, THREE, FAN3], ["pool", ONE]],
    }
    for name, expected in figures.items():
        for block in empty.get_submodule(name).children():
            assert _branches(block) == expected, name
    reduction = [[ONE, (THREE, "/2")], [ONE, THREE, (THREE, "/2")], ["pool/2"]]
    assert _branches(empty.reduction_a) == _branches(empty.reduction_b) == reduction


def test_every_convolution_has_batch_norm_and_no_bias(empty: InceptionV2Classifier) -> None:
    convs = [module for module in empty.modules() if isinstance(module, nn.Conv2d)]
    units = [module for module in empty.modules() if isinstance(module, ConvNorm)]
    assert len(convs) == len(units) > 90
    assert all(isinstance(unit.bn, nn.BatchNorm2d) and unit.conv.bias is None for unit in units)


def test_multiply_adds_and_parameters(empty: InceptionV2Classifier) -> None:
    """Table 3 (section 10): 4.8 G multiply-adds for "Factorized 7x7", the layout of table 1; abstract: < 25 M weights.

    Section 6 calls table 1 "about 2.5" times as dear as GoogLeNet. That is not this layout: 2.5 times the 1.5 G that
    table 3 has for GoogLeNet are the 3.8 G of its first row of Inception-v2, whose stem is still one 7x7; table 1 has
    the three 3x3 in its place, for which table 3 has 4.8 G, 3.2 times GoogLeNet. The net here meets the latter, with
    the widths inside the blocks chosen to do so, since the tables do not give them.
    """
    with FlopCounterMode(display=False) as counter:
        empty(pictures(299))
    assert counter.get_total_flops() / 2e9 == pytest.approx(4.8, abs=0.05)
    assert sum(parameter.numel() for parameter in empty.parameters()) < 25e6


def test_depth(empty: InceptionV2Classifier) -> None:
    """The longest way through has 52 convolutions, not the "42 layers" of section 6.

    6 (stem) + 3 x 3 (figure 5) + 3 (figure 10) + 5 x 5 (figure 6) + 3 (figure 10) + 2 x 3 (figure 7). The paper's 42 is
    met only if a block of figure 6 counts 3 as one of figure 5 does, which figure 6 with its five in a row contradicts.
    """
    blocks = [*empty.inception_a, empty.reduction_a, *empty.inception_b, empty.reduction_b, *empty.inception_c]
    longest = [max(sum(step not in ("pool", "pool/2") for step in row) for row in _branches(block)) for block in blocks]
    assert longest == [3, 3, 3, 3, 5, 5, 5, 5, 5, 3, 3, 3]
    assert 6 + sum(longest) == 52
    assert 6 + sum(min(length, 3) for length in longest) == 42


def test_auxiliary_classifier() -> None:
    """Figure 8: on the last 17x17 grid, 5x5x768 after the pool, 5x5x128, 1024, logits; only while training."""
    with torch.device("meta"):
        net = InceptionV2Classifier(num_classes=7)
    head = net.auxiliary
    assert [child.weight.shape for child in (head.conv.conv, head.hidden, head.logits)] == [
        (128, 768, 1, 1),
        (1024, 128 * 5 * 5),
        (7, 1024),
    ]
    assert isinstance(head.conv.bn, nn.BatchNorm2d)
    (main, side), (reduced,) = outputs_at(net, ["auxiliary.conv"], pictures(299))
    assert reduced.shape == (1, 128, 5, 5)
    assert main.shape == side.shape == (1, 7)
    assert net.auxiliary_weight == 0.4


def test_the_auxiliary_classifier_reads_the_last_17x17_grid() -> None:
    torch.manual_seed(0)
    net = InceptionV2Classifier(num_classes=7, padding="centred")
    _, auxiliary = net(torch.randn(2, 3, 96, 96))  # 6x6 cells
    auxiliary.square().sum().backward()
    assert net.inception_b[4].branch0.conv.weight.grad.any()
    assert net.reduction_b.branch0[0].conv.weight.grad is None
    _, auxiliary = net(torch.randn(2, 3, 40, 48))  # 3x3 cells, below the window of the pool
    assert auxiliary.isfinite().all()


def test_pictures_that_leave_no_cell_are_refused(empty: InceptionV2Classifier) -> None:
    assert empty(pictures(75)).shape == (1, 1000)
    with pytest.raises(ValueError, match=r"at least 75 x 75 px under padding=reference.*got 74 x 74"):
        empty(pictures(74))


def test_without_norm_the_convolutions_have_a_bias_and_activations_keep_their_size() -> None:
    torch.manual_seed(0)
    net = InceptionV2(norm="none")
    assert all(module.bias is not None for module in net.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        assert all(0.1 < float(level.std()) < 10 for level in net(torch.randn(1, 3, 64, 96)))


def test_an_unknown_padding_or_option_is_refused() -> None:
    with pytest.raises(ValueError, match="expected padding centred or reference, got 'same'"):
        InceptionV2(padding="same")
    with pytest.raises(TypeError):
        InceptionV2Classifier(width=2)
