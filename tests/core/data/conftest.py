import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supcon_pipeline.core.data.pixels import pack_image


@pytest.fixture
def items(rng, tmp_path: Path):
    """An array, the bytes of a file, a file, two that are none, and another array."""
    arrays = [rng.integers(0, 256, (9, 7, 3), dtype=np.uint8) for _ in range(4)]
    file = io.BytesIO()
    Image.fromarray(arrays[1]).save(file, "PNG")
    Image.fromarray(arrays[2]).save(tmp_path / "image.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "image.png").read_bytes()[:60])
    given = [arrays[0], file.getvalue(), tmp_path / "image.png", broken, tmp_path / "gone.png", arrays[3]]
    return given, np.stack([pack_image(array, 8, 3) for array in arrays])
