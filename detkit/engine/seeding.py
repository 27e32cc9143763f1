"""Randomness of a step as a function of (seed, step, rank): nothing needs storing to resume exactly."""

import hashlib
import os

import torch


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """63 bits that depend on all three numbers; equal numbers give equal bits on every machine."""
    digest = hashlib.blake2b(f"{seed},{step},{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generators, CPU and GPU, for one optimizer step."""
    torch.manual_seed(step_seed(seed, step, rank))


def use_deterministic_algorithms() -> None:
    """Ask torch for operators that repeat to the bit; one that cannot raises a RuntimeError when reached."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
