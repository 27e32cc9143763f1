"""VGG-16 (Simonyan and Zisserman, 2015, section 3.1), with dropout 0.5 in the net.

SGD 0.01 for 256 pictures a step, momentum 0.9, weight decay 5e-4, 74 epochs, divided by 10 three times, when the
validation accuracy stopped rising; when that is, is ours: epochs 30, 50 and 65. 224 px crops of pictures whose short
side is 256 to 512 px, flipped, their colours changed. The paper starts from a shallower net or from Glorot's
initialisation, this from Kaiming's. 0.01 for 256 is 0.000625 for 16.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_vgg16",
        "model.backbone.name": "vgg16",
        "data.short_sides": (256, 512),
        "data.colour": 0.5,
        "train.epochs": 74,
        "train.lr": 0.01 * 16 / 256,
        "train.weight_decay": 5e-4,
        "train.milestones": (30 / 74, 50 / 74, 65 / 74),
    }
)
