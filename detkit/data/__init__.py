"""Pictures and annotations in, batches out."""

from detkit.data.check import check_target

__all__ = ["check_target"]
