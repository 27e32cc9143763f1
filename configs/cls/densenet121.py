"""DenseNet-121 (Huang et al., Densely Connected Convolutional Networks, 2017, section 4.2).

SGD 0.1 for 256 pictures a step, Nesterov momentum 0.9, weight decay 1e-4, 90 epochs, divided by 10 at 30 and 60; crops
as in the ResNet code of Facebook that the paper follows: 8 to 100 % of the area. 0.1 for 256 is 0.00625 for 16.
"""

from detkit.config import ClassifierConfig, load_config

config = load_config("cls/resnet50", kind=ClassifierConfig).replace(
    {
        "name": "cls_densenet121",
        "model.backbone.name": "densenet121",
        "data.crop": "area",
        "data.colour": 0.5,
        "train.nesterov": True,
        "train.milestones": (30 / 90, 60 / 90),
    }
)
