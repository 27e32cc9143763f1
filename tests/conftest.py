"""What all tests share: where the real data are, and how many threads torch may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets (roadsigns, bccd, coco-mini), named by DETKIT_DATA."""
    folder = os.environ.get("DETKIT_DATA")
    if not folder:
        pytest.skip("needs real pictures: set DETKIT_DATA to a folder with roadsigns, bccd and coco-mini")
    return Path(folder)
