"""What a step computes and a run writes: losses, clipping, the average, rows, best.pth, what is not finite."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.ema import build_ema, warmed_decay
from detkit.engine.log import MetricsLog, read_rows
from detkit.engine.loggers import open_loggers
from detkit.engine.seeding import step_seed
from detkit.engine.step import Stepper
from detkit.types import Batch, Target
from tests.processes import environment
from tests.tiny_run import TinyLoader, TinyNet, assert_same, build_trainer, rows


def test_rows_are_the_means_of_their_steps(tmp_path: Path) -> None:
    build_trainer(tmp_path / "each", log_every=1).run()
    build_trainer(tmp_path / "pairs", log_every=2).run()
    each = {row["step"]: row for row in rows(tmp_path / "each") if "lr" in row}
    pairs = [row for row in rows(tmp_path / "pairs") if "lr" in row]
    assert [row["step"] for row in pairs] == [2, 4, 6, 8, 9]
    for row in pairs[:4]:
        for key in ("loss", "loss_mean", "loss_max", "grad_norm"):
            assert row[key] == pytest.approx((each[row["step"] - 1][key] + each[row["step"]][key]) / 2)
        assert row["loss"] == pytest.approx(row["loss_mean"] + row["loss_max"])
    assert [row["epoch"] for row in pairs] == [1, 2, 2, 3, 3]
    assert each[1]["lr"] == pytest.approx(0.05 * 0.001)  # the first step runs at the foot of the warm-up
    assert each[3]["lr"] == pytest.approx(0.05)


def test_best_holds_the_best_and_last_the_last(tmp_path: Path) -> None:
    scores = {3: 0.2, 6: 0.7, 9: 0.7}
    seen: dict[int, Tensor] = {}

    def scored(module: nn.Module, step: int) -> dict[str, float]:
        seen[step] = next(module.parameters()).clone()
        return {"AP": scores[step]}

    result = build_trainer(tmp_path, evaluate=scored).run()
    best = load_checkpoint(tmp_path / "best.pth")
    assert best["evaluation"] == {"step": 6, "AP": 0.7}
    assert "training" not in best
    assert torch.equal(best["ema"]["backbone.0.weight"], seen[6])
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] == 9
    assert load_checkpoint(tmp_path / "last.prev.pth")["training"]["step"] == 6
    assert (result.step, result.best, result.metrics["AP"]) == (9, 0.7, 0.7)


def test_without_a_valid_score_nothing_is_best_and_the_row_is_json(tmp_path: Path) -> None:
    result = build_trainer(tmp_path, evaluate=lambda module, step: {"AP": math.nan}).run()
    assert result.best is None
    assert not (tmp_path / "best.pth").exists()
    assert [row["AP"] for row in rows(tmp_path) if "AP" in row] == [None, None, None]
    with pytest.raises(ValueError, match=r"\['AR'\].*'AP'"):
        build_trainer(tmp_path / "b", evaluate=lambda module, step: {"AR": 1.0}).run()


@pytest.mark.parametrize(("every", "steps"), [(1, [3, 6, 8]), (2, [6, 8]), (0, [8])])
def test_evaluation_comes_every_so_many_epochs_and_at_the_end(every: int, steps: list[int], tmp_path: Path) -> None:
    build_trainer(tmp_path, eval_every=every, steps=8).run()
    assert [row["step"] for row in rows(tmp_path) if "AP" in row] == steps


def test_what_the_evaluation_draws_changes_no_weight(tmp_path: Path) -> None:
    build_trainer(tmp_path / "with").run()
    build_trainer(tmp_path / "without", evaluate=None).run()
    states = [load_checkpoint(tmp_path / name / "last.pth") for name in ("with", "without")]
    assert_same(states[0]["model"], states[1]["model"])
    assert not (tmp_path / "without" / "best.pth").exists()


class Breaking(TinyNet):
    """Its second loss, or only its gradient, is not finite in step 5."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.calls = where, 0

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        losses = super().forward(images, targets)
        self.calls += 1
        if self.calls == 7:  # epoch 1 from 0, batch 1 (five batches an epoch)
            weight = self.head.weight.sum()
            infinite = weight * torch.inf if self.where == "loss" else (weight * 0).sqrt()
            losses["loss_max"] = losses["loss_max"] + infinite
        return losses


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run(where: str, tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    broken = Breaking(where)
    broken.load_state_dict(trainer.model.state_dict())
    trainer.model.forward = broken.forward  # type: ignore[method-assign]
    trainer.model.head, trainer.model.backbone = broken.head, broken.backbone
    trainer._stepper.optimizer.param_groups[0]["params"] = [p for p in broken.parameters() if p.ndim > 1]
    trainer._stepper.optimizer.param_groups[1]["params"] = [p for p in broken.parameters() if p.ndim == 1]
    with pytest.raises(FloatingPointError) as stopped:
        trainer.run()
    message = str(stopped.value)
    assert message.startswith("step 4: ")
    assert "loss_mean=" in message
    assert "loss_max=" in message
    assert "110.jpg (id 110), 111.jpg (id 111)" in message
    assert ("100.jpg" in message) == (where == "gradient")  # a gradient belongs to all batches of the step
    assert load_checkpoint(tmp_path / "last.pth")["training"]["step"] == 3
    assert all(parameter.isfinite().all() for parameter in broken.parameters())


def test_accumulated_gradients_are_those_of_the_joined_batch() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
            return {"loss_a": torch.stack([self.weight * image.float().mean() for image in images]).mean()}

    halves = [next(TinyLoader().epoch(0, index)) for index in range(2)]
    joined = Batch(halves[0].images + halves[1].images, halves[0].targets * 2, halves[0].metas * 2)
    after = []
    for batches in ([joined], halves):
        model = Mean()
        stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.01), torch.device("cpu"))
        result = stepper.step(batches, 1)
        after.append((model.weight.item(), result.losses["loss"], result.grad_norm))
    assert after[0] == pytest.approx(after[1])


def test_clipping_limits_the_step_and_reports_the_norm_before() -> None:
    model = TinyNet()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=1.0), torch.device("cpu"), clip_norm=0.01)
    norm = stepper.step([next(TinyLoader().epoch(0, 0))], 1).grad_norm
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm()
    assert norm > 0.01
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_the_average_by_hand() -> None:
    model = nn.BatchNorm1d(1)
    ema = build_ema(model, 0.5)
    values = [1.0, 2.0, 4.0]
    expected = [1.0, 1.0 * 2 / 11 + 2.0 * 9 / 11]  # copied, then decay (1 + 1) / (10 + 1)
    expected.append(expected[1] * 3 / 12 + 4.0 * 9 / 12)
    for value, wanted in zip(values, expected, strict=True):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked += 1
        ema.update_parameters(model)
        assert ema.module.weight.item() == pytest.approx(wanted)
        assert ema.module.num_batches_tracked == model.num_batches_tracked
    assert warmed_decay(0.5, 1000) == 0.5


def test_step_seeds_differ_by_each_part_and_repeat() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(10) for step in range(100) for rank in range(2)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


def test_metrics_opened_again_have_no_later_and_no_broken_rows(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    with MetricsLog(tmp_path, 1, open_loggers(["tensorboard"], tmp_path, 1, {})) as log:
        log.write({"step": 2, "loss": math.inf, "AP": 0.5})
        assert log.find(2, "AP") is not None
        assert log.find(1, "AP") is None
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": null, "AP": 0.5}\n'
    )
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 2
    assert list((tmp_path / "tensorboard").glob("events.*"))


STEP_OF_MANY_PIXELS = """
import resource, sys
from pathlib import Path
import torch
from detkit.engine.step import Stepper
from detkit.types import Batch
from tests.tiny_detector import picture, target, tiny_detector

torch.set_num_threads(1)
model = tiny_detector()
stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), torch.device("cpu"))
metas = [{"image_id": 7, "file_name": "7.jpg", "height": 48, "width": 64}] * 2
small = Batch([picture(48, 64)] * 2, [target((5, 6, 30, 28))] * 2, metas)
stepper.step([small], 1)  # loads what is loaded lazily
large = Batch([picture(960, 1280), picture(900, 1200)], [target((5, 6, 30, 28))] * 2, metas)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
try:
    stepper.step([large], 2)
except MemoryError as error:
    print("refused:", error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
@pytest.mark.timeout(120)
def test_memory_that_runs_out_in_a_step_names_pictures_and_advice() -> None:
    """By a limit of the system: the first layer alone gives 157 MB."""
    done = subprocess.run(
        [sys.executable, "-c", STEP_OF_MANY_PIXELS],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(),
    )
    assert done.stdout.startswith("refused: step 2: out of memory with 2 pictures a batch (1280x960, 1200x900)"), done
    for advice in ("train.batch_size", "data.short_side", "train.precision=bfloat16"):
        assert advice in done.stdout
