"""DenseNet-169 (Huang et al., 2017) with FPN: DenseNet-121 with 32 layers in its last two blocks.

Levels: 256, 512, 1280 and 1664 channels at strides 4, 8, 16 and 32, after the norm and ReLU that follow each block;
anchors and pooling levels are those of `fpn_r50`. model.backbone.options.memory_efficient=true trades time for
memory.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_densenet169",
        "model.backbone.name": "densenet169",
    }
)
