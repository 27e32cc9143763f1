"""Two processes that train together: they compute what one would, agree on everything, and one of them writes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.data.shapes import draw_shapes
from detkit.engine.checkpoint import load_checkpoint
from detkit.engine.distributed import ALONE, World, world_from_environment
from detkit.engine.log import read_rows
from tests import ranks as cases
from tests.processes import ROOT, finished, ranks
from tests.tiny_run import assert_same, without_times

Results = dict[str, list[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    draw_shapes(folder / "shapes", train=1, val=8)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """What each case gave on rank 0 and on rank 1: one pair of processes does them all."""
    with ranks(ROOT / "tests" / "ranks.py", folder, *cases.CASES) as processes:
        for status, output, errors in finished(processes, timeout=120):
            assert status == 0, output + errors
    return {name: [torch.load(folder / f"{name}-{rank}", weights_only=True) for rank in (0, 1)] for name in cases.CASES}


def assert_gradients_close(found: list[Any], expected: Any) -> None:
    """On both ranks those of one process, to 1e-5 of the largest."""
    largest = max(gradient.abs().max() for gradient in expected["gradients"].values())
    for result in found:
        assert result["gradients"].keys() == expected["gradients"].keys()
        for name, gradient in expected["gradients"].items():
            torch.testing.assert_close(
                result["gradients"][name], gradient, rtol=0, atol=1e-5 * float(largest), msg=name
            )
    assert_same(*[result["gradients"] for result in found])


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_gradients_are_those_of_one_process_on_the_joined_batch(norm: str, results: Results) -> None:
    expected = cases.gradients(cases.detector(norm), [cases.batch(0, 4)], ALONE)
    assert_gradients_close(results[norm], expected)
    assert results[norm][0]["losses"] == results[norm][1]["losses"] == pytest.approx(expected["losses"], rel=1e-5)


def test_accumulated_gradients_too(results: Results) -> None:
    expected = cases.gradients(cases.detector("group"), [cases.batch(0, 4)], ALONE)
    assert_gradients_close(results["accumulated"], expected)


def test_a_rank_without_objects_takes_part(results: Results) -> None:
    expected = cases.gradients(cases.detector("group"), [cases.batch(0, 4, empty_from=2)], ALONE)
    assert_gradients_close(results["without_objects"], expected)


def test_a_layer_that_one_rank_does_not_reach_gets_half_the_gradient(results: Results) -> None:
    alone = cases.gradients(cases.branches(), [cases.batch(0, 2)], ALONE)["gradients"]
    for result in results["unreached"]:
        torch.testing.assert_close(result["gradients"]["objects.weight"], alone["objects.weight"] / 2)
        assert result["gradients"]["objects.bias"].item() == 0.5
        assert result["gradients"]["always.bias"].item() == 1.0


def test_a_layer_that_thaws_is_averaged_from_then_on(results: Results) -> None:
    expected = cases.gradients(cases.branches(), [cases.batch(0, 4)], ALONE)
    assert_gradients_close(results["thawed"], expected)


def test_all_ranks_hold_the_same_bits_and_log_the_same_numbers(results: Results, folder: Path) -> None:
    first, second = results["training"]
    assert first["step"] == 9
    assert_same(first["model"], second["model"])
    assert_same(first["ema"], second["ema"])
    assert first["best"] == second["best"]
    assert sum("loss" in row for row in first["rows"]) == 5
    assert [row["AP"] for row in first["rows"] if "AP" in row] == [0.3, 0.6, 0.9]  # rank 0's
    assert without_times(first["rows"]) == without_times(second["rows"])


def test_only_rank_0_writes(results: Results, folder: Path) -> None:
    saved = load_checkpoint(folder / "training" / "last.pth")
    assert_same(saved["model"], results["training"][0]["model"])
    steps = [row["step"] for row in read_rows(folder / "training" / "metrics.jsonl") if "loss" in row]
    assert steps == [2, 4, 6, 8, 9]  # each once


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(results: Results, folder: Path) -> None:
    first, second = results["not_finite"]
    assert first["error"][0] == second["error"][0] == "FloatingPointError"
    assert "step 4: a loss is not finite" in second["error"][1]
    assert first["error"][1] == f"rank 1: {second['error'][1]}"
    assert first["weights untouched"] and second["weights untouched"]
    assert first["step"] == second["step"] == 3


def test_a_picture_that_one_rank_cannot_read_stops_all_with_the_steps_before_saved(
    results: Results, folder: Path
) -> None:
    assert results["bad_picture"] == [
        ("ValueError", "rank 1: cannot read the picture 7.jpg"),
        ("ValueError", "cannot read the picture 7.jpg"),
    ]
    assert load_checkpoint(folder / "bad_picture" / "last.pth")["training"]["step"] == 2


def test_a_signal_to_one_rank_stops_all_after_the_same_step(results: Results, folder: Path) -> None:
    first, second = results["signalled"]
    assert first == second
    assert first[0] == "Stopped"
    assert "SIGTERM after step 5 of 9; saved" in first[1]
    assert load_checkpoint(folder / "signalled" / "last.pth")["training"]["step"] == 5


def test_evaluation_sees_each_picture_once_and_all_get_the_numbers(results: Results, folder: Path) -> None:
    alone = cases.validation(ALONE, folder)
    first, second = results["validation"]
    assert len(first["seen"]) + len(second["seen"]) == 7
    assert sorted(first["seen"] + second["seen"]) == sorted(alone["seen"])
    assert first["metrics"] == second["metrics"]
    for name, value in alone["metrics"].items():  # COCO's numbers to the bit; sums of losses are added in another order
        assert first["metrics"][name] == (pytest.approx(value, rel=1e-12) if name.startswith("val_") else value), name
    sheets = [folder / f"validation-of-{size}" / "sheet_0000001.jpg" for size in (1, 2)]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


def test_rank_0_picks_the_run_folder(results: Results) -> None:
    assert results["folders"] == [("net-2", True), ("net-2", False)]


def test_what_ranks_tell_each_other(results: Results) -> None:
    first, second = results["talk"]
    assert first["gather"][1]["name"] == "rank 1"
    assert torch.equal(first["gather"][1]["boxes"], torch.ones(2, 4))
    assert second["gather"] is None
    for result in (first, second):
        assert result["broadcast"]["name"] == "rank 1"
        assert (result["bytes"], result["no bytes"]) == ("abc", "")
        assert result["total"] == [1.0, 1.0]
        assert result["largest"] == 15
        assert result["all"] == [True, False]
    assert (first["turn"], second["turn"]) == (0, 1)
    assert second["turns"] == "0\n1\n"


def test_nothing_that_arrives_executes(results: Results, folder: Path) -> None:
    assert [result["code"][0] for result in results["refusals"]] == ["UnpicklingError"] * 2
    assert not (folder / "executed").exists()


def test_synchronised_batch_norm_is_refused_on_the_cpu(results: Results) -> None:
    for result in results["refusals"]:
        kind, message = result["sync"]
        assert kind == "ValueError"
        assert "norm=sync" in message and "GPUs only" in message


def test_the_environment_says_who_this_is() -> None:
    given = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    assert world_from_environment(given) == World(3, 1, 4, 2)
    assert world_from_environment({"PATH": "/bin"}) == ALONE
    with pytest.raises(ValueError, match="LOCAL_RANK=missing"):
        world_from_environment({name: value for name, value in given.items() if name != "LOCAL_RANK"})
    with pytest.raises(ValueError, match="rank 4 of 4"):
        world_from_environment({**given, "RANK": "4"})
