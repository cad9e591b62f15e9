from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError, Version
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from supcon_pipeline.core.figures.projector import ProjectorPoints
from supcon_pipeline.datasets.projector import ProjectorDataset


def points(num_rows: int = 5) -> ProjectorPoints:
    table = pd.DataFrame({"label": ["ant"] * num_rows, "id": range(num_rows)})
    return ProjectorPoints(torch.eye(num_rows), table, torch.full((num_rows, 3, 4, 4), 0.5))


def test_tensorboard_finds_vectors_table_and_pictures(tmp_path: Path) -> None:
    from google.protobuf import text_format

    dataset = ProjectorDataset(str(tmp_path / "projector"), Version(None, "1"))
    dataset.save(points())
    folder = tmp_path / "projector/1/projector"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (entry,) = config.embeddings
    assert np.array_equal(np.loadtxt(folder / entry.tensor_path), np.eye(5))
    assert (folder / entry.metadata_path).read_text().splitlines()[:2] == ["label\tid", "ant\t0"]
    # Five pictures of four pixels in a square of three by three.
    with Image.open(folder / entry.sprite.image_path) as sprites:
        assert sprites.size == (12, 12)
    # Without events, TensorBoard does not take the folder for a run.
    assert list(folder.glob("events.out.tfevents.*"))
    assert dataset.exists()


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    broken = ProjectorPoints(torch.eye(5), points(4).table, points().sprites)
    dataset = ProjectorDataset(str(tmp_path / "projector"), Version(None, "1"))
    with pytest.raises(DatasetError, match="labels should equal"):
        dataset.save(broken)
    assert not dataset.exists()
    assert [path for path in tmp_path.rglob("*") if not path.is_dir() or path.suffix == ".tmp"] == []


def test_it_is_read_by_tensorboard_alone(tmp_path: Path) -> None:
    dataset = ProjectorDataset(str(tmp_path / "projector"), Version(None, "1"))
    dataset.save(points())
    with pytest.raises(DatasetError, match="must be read by TensorBoard"):
        dataset.load()
