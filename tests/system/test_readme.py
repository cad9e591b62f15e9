import runpy
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT


def test_the_picture_of_the_readme_is_small_and_drawn_from_the_newest_run(
    finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "embedding_map.py"
    script.write_text((ROOT / "docs/pictures/embedding_map.py").read_text())
    monkeypatch.chdir(finished_project)
    monkeypatch.setenv("KEDRO_ENV", "tiny")
    runpy.run_path(str(script), run_name="__main__")
    with Image.open(tmp_path / "embedding_map.png") as picture:
        assert picture.size == (1260, 742)
    assert (ROOT / "docs/pictures/embedding_map.png").stat().st_size < 120 * 1024
