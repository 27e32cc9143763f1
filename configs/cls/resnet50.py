"""ResNet-50 as a classifier; the base of the recipes of this folder.

He et al., Deep Residual Learning (2015), section 3.4: SGD 0.1 for 256 pictures a step, momentum 0.9, weight decay 1e-4,
divided by 10 when the error stops falling; 224 px crops of pictures whose short side is 256 to 480 px, flipped. When
that is, Goyal et al., Accurate, Large Minibatch SGD (2017), section 5.1, fix at epochs 30, 60 and 80 of 90.

In all recipes: `train.lr` is for 16 pictures a step and scaled to the actual number, so 0.1 for 256 is 0.1 * 16 / 256 =
0.00625; norms and biases are not decayed; colour, where a paper changes it, is jittered in half of the pictures.
"""

from detkit.config import ClassifierConfig, ClassifierTrainConfig, FolderConfig

config = ClassifierConfig(
    name="cls_resnet50",
    data=FolderConfig(crop="side", short_sides=(256, 480)),
    train=ClassifierTrainConfig(
        epochs=90,
        batch_size=256,
        lr=0.1 * 16 / 256,
        milestones=(30 / 90, 60 / 90, 80 / 90),
        warmup_steps=0,
    ),
)
