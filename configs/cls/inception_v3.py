"""Inception V3 (Szegedy et al., Rethinking the Inception Architecture, 2015, sections 7 and 8).

RMSProp with decay 0.9 and eps 1.0, rate 0.045, times 0.94 every two epochs, gradients clipped at 2.0, 100 epochs, label
smoothing 0.1, pictures of 299 px, the average of the weights over time; the auxiliary head has its weight in the net.
Each of the 50 replicas of the paper steps by itself with 32 pictures, so 0.045 is for 32 (0.0225 for 16). Its momentum
0.9 and weight decay 4e-5 are those of the authors' published code. TensorFlow adds eps to the mean square, torch to its
root.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_inception_v3",
        "model.backbone.name": "inception_v3",
        "model.pixel_mean": (127.5, 127.5, 127.5),
        "model.pixel_std": (127.5, 127.5, 127.5),
        "data.size": 299,
        "data.val_short_side": 342,
        "data.crop": "area",
        "data.colour": 0.5,
        "train.epochs": 100,
        "train.batch_size": 32,
        "train.optimizer": "rmsprop",
        "train.lr": 0.045 * 16 / 32,
        "train.alpha": 0.9,
        "train.eps": 1.0,
        "train.weight_decay": 4e-5,
        "train.schedule": "exponential",
        "train.gamma": 0.94,
        "train.decay_epochs": 2,
        "train.clip_norm": 2.0,
        "train.label_smoothing": 0.1,
        "train.ema_decay": 0.9999,
    }
)
