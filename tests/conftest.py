import pytest


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """No test may ask the network for a model."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
