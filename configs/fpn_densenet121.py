"""DenseNet-121 (Huang et al., 2017) with FPN: each layer reads all layers before it in its block.

Levels: 256, 512, 1024 and 1024 channels at strides 4, 8, 16 and 32, after the norm and ReLU that follow each block;
anchors and pooling levels are those of `fpn_r50`. model.backbone.options.memory_efficient=true trades time for
memory.
"""

from detkit.config import load_config

config = load_config("fpn_r50").replace(
    {
        "name": "fpn_densenet121",
        "model.backbone.name": "densenet121",
    }
)
