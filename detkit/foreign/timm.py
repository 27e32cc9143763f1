"""timm's classifiers: its ResNets have torchvision's names, and where only timm has a net, detkit's names are timm's."""

from detkit.foreign.names import Library

LIBRARY = Library(detector=(), backbone=((r"(.+)", r"\1"),))
