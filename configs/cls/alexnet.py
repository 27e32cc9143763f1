"""AlexNet (Krizhevsky et al., 2012, sections 4 and 5), with dropout 0.5 in the net.

SGD 0.01 for 128 pictures a step, momentum 0.9, weight decay 5e-4, about 90 epochs, divided by 10 three times, when the
validation error stopped falling; when that is, is ours: epochs 30, 60 and 80. 224 px crops of pictures whose short side
is 256 px, flipped. The paper changes colours along their principal components, this recipe jitters them.
0.01 for 128 is 0.00125 for 16.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_alexnet",
        "model.backbone.name": "alexnet",
        "data.short_sides": (256, 256),
        "data.colour": 0.5,
        "train.batch_size": 128,
        "train.lr": 0.01 * 16 / 128,
        "train.weight_decay": 5e-4,
    }
)
