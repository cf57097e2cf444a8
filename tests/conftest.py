import os

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processor: a thread each, set before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

# The same examples everywhere, however slow the machine is
hypothesis.settings.register_profile(
    "any machine", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No test may ask the network for a model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
