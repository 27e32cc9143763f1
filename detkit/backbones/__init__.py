"""Backbones: pictures to feature levels. Each has `channels` and `strides`, finest level first, and one forward.

`BACKBONES[name](norm=..., frozen_stages=..., padding=...)` builds one, `CLASSIFIERS[name](num_classes=...)` the net
that its paper describes, with the same names of parameters.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from detkit.backbones.alexnet import AlexNet, AlexNetClassifier
from detkit.backbones.base import Backbone
from detkit.backbones.densenet import DenseNet, DenseNetClassifier
from detkit.backbones.detnet import DetNet, DetNetClassifier
from detkit.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteClassifier
from detkit.backbones.inception_resnet_v2 import InceptionResNetV2, InceptionResNetV2Classifier
from detkit.backbones.inception_v1 import InceptionV1, InceptionV1Classifier
from detkit.backbones.inception_v2 import InceptionV2, InceptionV2Classifier
from detkit.backbones.inception_v3 import InceptionV3, InceptionV3Classifier
from detkit.backbones.inception_v4 import InceptionV4, InceptionV4Classifier
from detkit.backbones.mobilenet_v1 import MobileNetV1, MobileNetV1Classifier
from detkit.backbones.mobilenet_v2 import MobileNetV2, MobileNetV2Classifier
from detkit.backbones.resnet import ResNet, ResNetClassifier
from detkit.backbones.shufflenet_v1 import ShuffleNetV1, ShuffleNetV1Classifier
from detkit.backbones.shufflenet_v2 import ShuffleNetV2, ShuffleNetV2Classifier
from detkit.backbones.squeezenet import SqueezeNet, SqueezeNetClassifier
from detkit.backbones.vgg import VGG, VGGClassifier

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "alexnet": AlexNet,
    "vgg16": VGG,
    "vgg16_bn": partial(VGG, norm="batch"),
    "inception_v1": InceptionV1,
    "inception_v2": InceptionV2,
    "inception_v3": InceptionV3,
    "inception_v4": InceptionV4,
    "inception_resnet_v2": InceptionResNetV2,
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "resnet152": partial(ResNet, 152),
    "densenet121": partial(DenseNet, 121),
    "densenet169": partial(DenseNet, 169),
    "densenet201": partial(DenseNet, 201),
    "detnet59": DetNet,
    "squeezenet1_0": partial(SqueezeNet, "1_0"),
    "squeezenet1_1": partial(SqueezeNet, "1_1"),
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "shufflenet_v1": ShuffleNetV1,
    "shufflenet_v2": ShuffleNetV2,
    "efficientnet_lite0": EfficientNetLite,
}

CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNetClassifier,
    "vgg16": VGGClassifier,
    "vgg16_bn": partial(VGGClassifier, norm="batch"),
    "inception_v1": InceptionV1Classifier,
    "inception_v2": InceptionV2Classifier,
    "inception_v3": InceptionV3Classifier,
    "inception_v4": InceptionV4Classifier,
    "inception_resnet_v2": InceptionResNetV2Classifier,
    "resnet18": partial(ResNetClassifier, 18),
    "resnet34": partial(ResNetClassifier, 34),
    "resnet50": partial(ResNetClassifier, 50),
    "resnet101": partial(ResNetClassifier, 101),
    "resnet152": partial(ResNetClassifier, 152),
    "densenet121": partial(DenseNetClassifier, 121),
    "densenet169": partial(DenseNetClassifier, 169),
    "densenet201": partial(DenseNetClassifier, 201),
    "detnet59": DetNetClassifier,
    "squeezenet1_0": partial(SqueezeNetClassifier, "1_0"),
    "squeezenet1_1": partial(SqueezeNetClassifier, "1_1"),
    "mobilenet_v1": MobileNetV1Classifier,
    "mobilenet_v2": MobileNetV2Classifier,
    "shufflenet_v1": ShuffleNetV1Classifier,
    "shufflenet_v2": ShuffleNetV2Classifier,
    "efficientnet_lite0": EfficientNetLiteClassifier,
}
