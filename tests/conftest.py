"""What all tests share: where the real scans are, and a seeded source of random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the project; tests that need it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real scans (../shared/data) are not here")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers from one fixed seed."""
    return np.random.default_rng(20260101)
