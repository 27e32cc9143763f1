"""SqueezeNet 1.0 (Iandola et al., 2016), with dropout 0.5 in the net.

SGD 0.04, falling linearly to 0; the paper's published solver has 512 pictures a step, weight decay 2e-4 and 170,000
steps, which are 68 epochs. 0.04 for 512 is 0.00125 for 16. Crops as for AlexNet, which the paper compares with.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_squeezenet1_0",
        "model.backbone.name": "squeezenet1_0",
        "data.short_sides": (256, 256),
        "train.epochs": 68,
        "train.batch_size": 512,
        "train.lr": 0.04 * 16 / 512,
        "train.weight_decay": 2e-4,
        "train.schedule": "linear",
    }
)
