"""What is wrong, or odd, with a data set: found, counted, graded, listed with file and id, and repaired."""

from detkit.doctor.examine import examine, examine_quickly
from detkit.doctor.findings import Finding, Findings, Place

__all__ = ["Finding", "Findings", "Place", "examine", "examine_quickly"]
