"""EfficientNet-Lite0, by the recipe of EfficientNet (Tan and Le, 2019, section 5.2).

RMSProp with decay 0.9 and momentum 0.9, weight decay 1e-5, rate 0.256 times 0.97 every 2.4 epochs. Label smoothing 0.1,
350 epochs, eps 1e-3, 5 epochs of warm-up (1,565 steps) and the 4,096 pictures a step which 0.256 is for are those of
the authors' published code; that is 0.001 for 16 pictures. Without the search for augmentations that the paper adds.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_efficientnet_lite0",
        "model.backbone.name": "efficientnet_lite0",
        "model.pixel_mean": (127.0, 127.0, 127.0),
        "model.pixel_std": (128.0, 128.0, 128.0),
        "data.crop": "area",
        "train.epochs": 350,
        "train.batch_size": 4096,
        "train.optimizer": "rmsprop",
        "train.lr": 0.256 * 16 / 4096,
        "train.alpha": 0.9,
        "train.eps": 1e-3,
        "train.weight_decay": 1e-5,
        "train.schedule": "exponential",
        "train.gamma": 0.97,
        "train.decay_epochs": 2.4,
        "train.warmup_steps": 1565,
        "train.label_smoothing": 0.1,
        "train.ema_decay": 0.9999,
    }
)
