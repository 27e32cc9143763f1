"""detkit: two-stage object detectors that install with one command and train on any machine."""

__version__ = "0.1.0"
