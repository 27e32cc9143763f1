"""Learning rates by hand: warm-up, multistep, cosine, one-cycle, scaling; groups of the optimizer."""

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from detkit.engine.schedule import build_optimizer, build_scheduler, scaled_lr, total_steps


def one_parameter(lr: float = 1.0) -> Optimizer:
    return build_optimizer(nn.Linear(2, 1, bias=False), "sgd", lr, weight_decay=0.0)


def learning_rates(kind: str, steps: int, **settings: object) -> list[float]:
    """Rate of each step 0 .. steps, the last one as it stands after the run."""
    optimizer = one_parameter()
    scheduler = build_scheduler(optimizer, kind, steps, **settings)  # type: ignore[arg-type]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize(("batch", "expected"), [(1, 0.00125), (4, 0.005), (16, 0.02), (32, 0.04)])
def test_the_rate_is_proportional_to_the_batch(batch: int, expected: float) -> None:
    assert scaled_lr(0.02, batch) == pytest.approx(expected)


def test_accumulation_and_ranks_count_as_batch() -> None:
    assert scaled_lr(0.02, batch_size=2, accumulate=4, world_size=2) == pytest.approx(0.02)


def test_warm_up_is_linear_then_multistep_falls_at_its_fractions() -> None:
    rates = learning_rates("multistep", 10, warmup_steps=4, warmup_factor=0.2, milestones=(0.6, 0.9), gamma=0.1)
    # warm-up: 0.2 + 0.8 * s / 4; milestones at steps 6 and 9
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_is_half_in_the_middle_and_ends_at_zero() -> None:
    rates = learning_rates("cosine", 8)
    # (1 + cos(pi s / 8)) / 2
    assert [rates[0], rates[4], rates[8]] == pytest.approx([1, 0.5, 0], abs=1e-7)
    assert rates[2] == pytest.approx((1 + 0.5**0.5) / 2)


def test_cosine_after_warm_up_covers_the_rest() -> None:
    rates = learning_rates("cosine", 10, warmup_steps=2, warmup_factor=0.5)
    assert rates[:3] == pytest.approx([0.5, 0.75, 1])
    assert [rates[6], rates[10]] == pytest.approx([0.5, 0], abs=1e-7)


def test_one_cycle_tops_at_the_warm_up() -> None:
    rates = learning_rates("onecycle", 10, warmup_steps=4, warmup_factor=0.1)
    # half a cosine from 0.1 to 1 over 4 steps, then down to 1e-5 over 6
    assert [rates[0], rates[2], rates[4], rates[7]] == pytest.approx([0.1, 0.55, 1, 0.500005])
    assert rates[10] == pytest.approx(1e-5)


@pytest.mark.parametrize("kind", ["multistep", "cosine", "onecycle"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_runs_shorter_than_their_warm_up_work(kind: str, steps: int) -> None:
    rates = learning_rates(kind, steps, warmup_steps=500)
    assert len(rates) == steps + 1
    assert max(rates) <= 1


@pytest.mark.parametrize("kind", ["multistep", "cosine", "onecycle"])
def test_a_restored_schedule_goes_on_to_the_same_bits(kind: str) -> None:
    whole = learning_rates(kind, 12, warmup_steps=3)
    for stop in range(12):
        optimizer = one_parameter()
        scheduler = build_scheduler(optimizer, kind, 12, warmup_steps=3)  # type: ignore[arg-type]
        for _ in range(stop):
            optimizer.step()
            scheduler.step()
        fresh = one_parameter()
        restored = build_scheduler(fresh, kind, 12, warmup_steps=3)  # type: ignore[arg-type]
        fresh.load_state_dict(optimizer.state_dict())
        restored.load_state_dict(scheduler.state_dict())
        assert fresh.param_groups[0]["lr"] == whole[stop]
        for expected in whole[stop + 1 :]:
            fresh.step()
            restored.step()
            assert fresh.param_groups[0]["lr"] == expected


@pytest.mark.parametrize(
    "settings",
    [{"milestones": (0.9, 0.5)}, {"milestones": (0.5, 1.5)}, {"warmup_factor": 0.0}, {"warmup_steps": -1}],
)
def test_impossible_schedules_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="got"):
        learning_rates("multistep", 10, **settings)
    with pytest.raises(ValueError, match="multistep, cosine, onecycle, exponential or linear"):
        learning_rates("constant", 10)


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.head_frozen = nn.Linear(2, 2).requires_grad_(False)


def test_norms_and_biases_are_not_decayed_and_the_backbone_learns_slower() -> None:
    model = TwoParts()
    optimizer = build_optimizer(model, "adamw", 0.1, weight_decay=0.05, backbone_lr_factor=0.5)
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    by_name = {name: settings.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert by_name == {
        "backbone.0.weight": (0.05, 0.05),
        "backbone.0.bias": (0.05, 0.0),
        "backbone.1.weight": (0.05, 0.0),
        "backbone.1.bias": (0.05, 0.0),
        "head.weight": (0.1, 0.05),
        "head.bias": (0.1, 0.0),
        "head_frozen.weight": None,
        "head_frozen.bias": None,
    }
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_decay_can_reach_everything_and_nothing_trainable_is_an_error() -> None:
    optimizer = build_optimizer(TwoParts(), "sgd", 0.1, weight_decay=0.05, decay_norm_and_bias=True)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.05}
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(TwoParts().requires_grad_(False), "sgd", 0.1, 0.0)
    with pytest.raises(ValueError, match="sgd, adamw or rmsprop"):
        build_optimizer(TwoParts(), "adam", 0.1, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_fused_updates_equal_the_plain_ones_in_channels_last(kind: str) -> None:
    torch.manual_seed(0)
    models = [nn.Conv2d(8, 6, 3).to(memory_format=torch.channels_last) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [build_optimizer(model, kind, 0.1, 0.01) for model in models]  # type: ignore[arg-type]
    for group in optimizers[1].param_groups:
        group["fused"] = False
    assert optimizers[0].param_groups[0]["fused"]
    pictures = torch.randn(2, 8, 7, 7)  # not channels-last
    for _ in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(pictures).square().sum().backward()
            optimizer.step()
    assert torch.allclose(models[0].weight, models[1].weight, rtol=1e-4, atol=1e-5)


def test_total_steps() -> None:
    assert total_steps(10, accumulate=4, epochs=3) == 9  # 4 + 4 + 2 batches an epoch
    assert total_steps(10, epochs=3, iterations=7) == 7
    with pytest.raises(ValueError, match="nothing to train"):
        total_steps(0, epochs=3)
