"""Backgrounds and fills of Shapes: gradients, blotches, stripes, checks and grain. Pictures are RGB float32."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Picture = NDArray[np.float32]  # (H, W, 3) RGB, 0..255
Weights = NDArray[np.float32]  # (H, W), 0..1

MIN_CONTRAST = 70.0  # Euclidean RGB distance at which a person sees an 8 px shape at once


def draw_background(rng: Generator, height: int, width: int) -> Picture:
    """Two related colours mixed by a random pattern, with blotches of brightness and some grain."""
    first = rng.uniform(20, 235, 3)
    second = np.clip(first + rng.uniform(-60, 60, 3), 0, 255)
    pattern = (_gradient, _blotches, _stripes, _checks, _grain)[rng.integers(5)]
    weights = pattern(rng, height, width)[..., None]
    picture = first * (1 - weights) + second * weights
    picture += (_blotches(rng, height, width)[..., None] - 0.5) * rng.uniform(0, 40)
    picture += rng.normal(0, rng.uniform(0, 8), (height, width, 1))
    return np.clip(picture, 0, 255).astype(np.float32)


def draw_fill(rng: Generator, colour: NDArray[np.float64], height: int, width: int) -> Picture:
    """The surface of an object: its colour, shaded from one side to the other, often with a faint texture."""
    shade = (_gradient(rng, height, width) - 0.5) * rng.uniform(0, 50)
    if rng.random() < 0.5:
        pattern = (_blotches, _stripes, _grain)[rng.integers(3)]
        shade += (pattern(rng, height, width) - 0.5) * rng.uniform(0, 30)
    return np.clip(colour + shade[..., None], 0, 255).astype(np.float32)


def pick_colour(rng: Generator, picture: Picture, alpha: Weights) -> NDArray[np.float64]:
    """A random colour that differs from nearly all pixels which the object will cover or border on."""
    near = picture[cv2.dilate(alpha, np.ones((5, 5), np.uint8)) > 0]
    best, best_contrast = np.zeros(3), -1.0
    for _ in range(20):
        colour = rng.uniform(10, 245, 3)
        contrast = float(np.percentile(np.linalg.norm(near - colour, axis=1), 10))
        if contrast > best_contrast:
            best, best_contrast = colour, contrast
        if contrast >= MIN_CONTRAST:
            break
    return best


def _gradient(rng: Generator, height: int, width: int) -> Weights:
    along = _along(rng, height, width)
    return (along - along.min()) / (along.max() - along.min())


def _stripes(rng: Generator, height: int, width: int) -> Weights:
    period = rng.uniform(5, 30)
    return 0.5 + 0.5 * np.sin(_along(rng, height, width) * 2 * np.pi / period)


def _checks(rng: Generator, height: int, width: int) -> Weights:
    cell = rng.uniform(4, 14)
    angle = rng.uniform(0, np.pi / 2)
    across = [np.floor(_project(turn, height, width) / cell) for turn in (angle, angle + np.pi / 2)]
    return ((across[0] + across[1]) % 2).astype(np.float32)


def _blotches(rng: Generator, height: int, width: int) -> Weights:
    """Smooth noise of a random coarseness."""
    cells = int(rng.integers(3, 14))
    coarse = rng.random((cells, cells)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _grain(rng: Generator, height: int, width: int) -> Weights:
    fine = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (3, 3), 0)
    return np.clip(fine, 0, 1)


def _along(rng: Generator, height: int, width: int) -> Weights:
    return _project(rng.uniform(0, 2 * np.pi), height, width)


def _project(angle: float, height: int, width: int) -> Weights:
    """Each pixel's distance in px along the direction `angle`."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    return (xs * np.cos(angle) + ys * np.sin(angle)).astype(np.float32)
