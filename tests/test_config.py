"""Configs: overrides, mistakes and what they are answered with, files, and every config that comes with detkit."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from detkit.build import build_detector
from detkit.config import Config, RPNConfig, config_from_dict, config_names, load_config, parse_overrides

FOLDER = Path(__file__).parent.parent / "configs"
FILES = sorted(path for path in FOLDER.rglob("*.py") if path.name != "__init__.py")


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def test_overrides_are_python_or_text() -> None:
    parsed = parse_overrides(
        ["a.b=3", "c=0.5", "d=none", "e=None", "f=true", "g=[1, 2]", "h=(1,)", "i=resnet50", "j=a=b", " k = 1e-3", "l="]
    )
    values = (3, 0.5, None, None, True, [1, 2], (1,), "resnet50", "a=b", 1e-3, "")
    assert tuple(parsed.values()) == values
    assert list(parsed) == ["a.b", *"cdefghijkl"]


@pytest.mark.parametrize("text", ["train.epochs", "=3", ""])
def test_an_override_without_key_or_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected section\.key=value"):
        parse_overrides([text])


def test_overrides_reach_the_config() -> None:
    config = load_config(
        "fpn_r50",
        [
            "train.epochs=3",
            "model.backbone.weights=none",
            "model.rpn.anchor_sizes=[8, 16]",
            "model.rpn.anchor_ratios=(1,)",
            "data.root=some folder/here",
            "data.short_side=auto",
            "train.lr=1",
            "data.classes=['cat']",
            "model.roi_head.class_agnostic=true",
        ],
    )
    assert config.train.epochs == 3
    assert config.model.backbone.weights is None
    assert config.model.rpn.anchor_sizes == (8, 16)
    assert config.model.rpn.anchor_ratios == (1,)
    assert config.data.root == "some folder/here"
    assert config.data.short_side == "auto"
    assert config.train.lr == 1.0
    assert config.data.classes == ("cat",)
    assert config.model.roi_head.class_agnostic


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train.epohcs", "did you mean train.epochs"),
        ("model.backbone.wieghts", "did you mean model.backbone.weights"),
        ("epochs", "did you mean .*train.epochs"),
        ("modle.rpn.convs", "did you mean model.rpn.convs"),
        ("train.epochs.more", "did you mean train.epochs"),
        ("zzz", "the sections are name, model, data, train"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"unknown config key '{key}': {hint}"):
        Config().replace({key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", "many"),
        ("train.epochs", 0),
        ("train.epochs", 1.5),
        ("train.lr", 0.0),
        ("train.lr", float("nan")),
        ("train.lr", float("inf")),
        ("train.ema_decay", 1.0),
        ("data.flip", 1.1),
        ("data.short_side", "large"),
        ("data.workers", -1),
        ("model.backbone.norm", "layer"),
        ("model.rpn.anchor_ratios", ()),
        ("model.rpn.anchor_sizes", (8, -1)),
        ("model.roi_head.box_weights", (1, 1, 1)),
        ("model.pixel_std", (0, 1, 1)),
        ("data.resize", None),
        ("name", "a/b"),
    ],
)
def test_wrong_types_and_ranges_name_the_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key) as caught:
        Config().replace({key: value})
    assert not isinstance(caught.value, ValidationError)
    assert "\n" not in str(caught.value)


def test_thresholds_must_be_in_order() -> None:
    with pytest.raises(ValueError, match=r"negative_iou 0\.8 must not exceed positive_iou 0\.7"):
        Config().replace({"model.rpn.negative_iou": 0.8})


def test_a_section_takes_no_value() -> None:
    with pytest.raises(ValueError, match=r"model\.rpn is a section; set one of its keys: model\.rpn\.anchor_sizes"):
        Config().replace({"model.rpn": 3})


def test_replace_is_a_copy_and_configs_are_frozen() -> None:
    base = Config()
    changed = base.replace({"train.epochs": 99})
    assert changed.train.epochs == 99
    assert base.train.epochs == Config().train.epochs != 99
    assert base == Config()
    with pytest.raises(ValidationError, match="frozen"):
        base.train.epochs = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        RPNConfig(convz=2)  # type: ignore[call-arg]


def test_plain_data_and_back() -> None:
    config = Config().replace({"model.rpn.anchor_sizes": [1, 2], "train.iterations": 5})
    assert config_from_dict(config.model_dump()) == config
    assert config_from_dict(config.model_dump(mode="json")) == config
    with pytest.raises(ValueError, match=r"did you mean train\.epochs"):
        config_from_dict({"train": {"epohcs": 1}})


def test_a_file_by_path_and_by_name(tmp_path: Path) -> None:
    change = "config = load_config('fpn_r50').replace({'name': 'x'})"
    path = write(tmp_path, f"from detkit.config import load_config\n{change}\n")
    assert load_config(path, ["train.seed=7"]) == load_config("fpn_r50", ["name=x", "train.seed=7"])
    for source in ("coco/fpn_r50_1x.py", FOLDER / "coco/fpn_r50_1x.py"):
        assert load_config(source) == load_config("coco/fpn_r50_1x")


def test_a_missing_file_suggests_a_name() -> None:
    with pytest.raises(ValueError, match=r"no config file 'fpn_r5O': did you mean fpn_r50"):
        load_config("fpn_r5O")
    with pytest.raises(ValueError, match=r"no config file 'zzz\.py': .*coco/fpn_r50_1x"):
        load_config("zzz.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ("config = {'train': 1}", "found none"),
        ("x = 1\nconfig = = 2", "line 2: not valid Python"),
        ("from detkit.config import *\nconfig = Config(train=TrainConfig(epohcs=3))", "did you mean train.epochs"),
        ("from detkit.config import *\nconfig = Config(modle=1)", "unknown config key 'modle'"),
        ("from detkit.config import *\nconfig = Config(train=TrainConfig(epochs=-3))", "epochs: .*-3"),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"mine\.py.*{message}") as caught:
        load_config(write(tmp_path, text))
    assert not isinstance(caught.value, ValidationError)


def test_every_file_is_found_by_its_name() -> None:
    assert config_names() == sorted(path.relative_to(FOLDER).as_posix().removesuffix(".py") for path in FILES)
    assert len(FILES) >= 3


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name != "cls"], ids=lambda path: path.relative_to(FOLDER).as_posix()
)
def test_every_config_loads_and_builds(path: Path) -> None:
    config = load_config(path)
    model = build_detector(config.model, num_classes=3, pretrained=False)
    assert model.roi_head.box_head.num_classes == 3
    assert model.rpn.anchors.strides == model.neck.strides


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.milestones=(0.9, 0.1)"], r"^train: milestones must rise, got \(0\.9, 0\.1\)$"),
        (
            ["train.optimizer=sgd", "train.nesterov=true", "train.momentum=0"],
            "^train: nesterov=true needs momentum above 0$",
        ),
    ],
)
def test_training_keys_that_do_not_go_together(overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_config("fpn_r50", overrides)
