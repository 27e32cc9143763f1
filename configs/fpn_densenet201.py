"""DenseNet-201 (Huang et al., 2017) with FPN: DenseNet-121 with 48 and 32 layers in its last two blocks.

Levels: 256, 512, 1792 and 1920 channels at strides 4, 8, 16 and 32, after the norm and ReLU that follow each block;
anchors and pooling levels are those of `fpn_r50`. model.backbone.options.memory_efficient=true trades time for
memory.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_densenet201",
        "model.backbone.name": "densenet201",
    }
)
