"""Repeat-factor sampling (Gupta et al., LVIS, 2019, section 4.1): pictures of rare classes come more often.

I pictures, K classes. f_c is the share of pictures that show class c, r_c = max(1, sqrt(threshold / f_c)); a picture's
factor is the largest of its classes', 1 without objects.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from detkit.data.coco import CocoIndex


def repeat_factors(index: CocoIndex, threshold: float) -> NDArray[np.float64]:
    """How often each picture is to come in an epoch, on average: (I,), at least 1. Crowd regions are no objects."""
    owners = np.repeat(np.arange(len(index)), np.diff(index.offsets))[~index.crowd]
    shown = np.unique(np.stack((owners, index.labels[~index.crowd])), axis=1)  # (2, P): picture, class
    share = np.bincount(shown[1], minlength=len(index.classes)) / len(index)
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1 / len(index))))
    factors = np.ones(len(index))
    np.maximum.at(factors, shown[0], of_class[shown[1]])
    return factors


def repeated_order(factors: NDArray[np.float64], seed: int, epoch: int) -> list[int]:
    """The places of the pictures of an epoch: picture i comes floor(r_i) or ceil(r_i) times, r_i on average.

    A copy k of picture i is the place i + k * I. All epochs have the same length, the sum of the factors rounded up:
    the fractions are rounded together, by marks at distance 1 along their sum in an order that is drawn, so that what
    one picture gets another does not. The factors are scaled up for that by less than 1 / I.
    """
    rng = np.random.default_rng(_bits(seed, epoch))
    length = math.ceil(factors.sum() - 1e-9)
    drawn = rng.permutation(len(factors))
    ends = np.cumsum(factors[drawn] * (length / factors.sum()))
    ends[-1] = length
    marks = np.ceil(ends - rng.random()).astype(np.int64)
    counts = np.diff(marks, prepend=0)
    pictures = np.repeat(drawn, counts)
    copies = np.arange(len(pictures)) - np.repeat(marks - counts, counts)
    return rng.permutation(pictures + copies * len(factors)).tolist()


def _bits(seed: int, epoch: int) -> int:
    digest = hashlib.blake2b(f"repeats,{seed},{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
