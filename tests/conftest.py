"""What all tests share: where the real scans are, and a seeded source of random numbers."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pytest

# One seed, and no clock: how long an example takes tells how busy the machine is. Tests that promise a time say so themselves.
hypothesis.settings.register_profile(
    "medrecon", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("medrecon")

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
