import pytest

from supcon_pipeline.core.losses import sincere, supcon


@pytest.fixture(params=[3, 2048])
def tile(request, monkeypatch):
    """Tiles smaller than the batch, with a rest at the edge, and larger."""
    monkeypatch.setattr(supcon, "CPU_TILE", request.param)
    monkeypatch.setattr(sincere, "SINCERE_TILE", 1)
    monkeypatch.setattr(sincere, "MIN_SINCERE_ROWS", request.param)
