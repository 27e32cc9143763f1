"""timm's classifiers: its ResNets have torchvision's names; nets that only timm has are named here as there."""

from detkit.foreign.names import Library

LIBRARY = Library(detector=(), backbone=((r"(.+)", r"\1"),))
