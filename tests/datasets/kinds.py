"""An artifact of each kind that the catalog has, made without a run."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from kedro.io import DataCatalog
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as InteractiveFigure
from plotly.graph_objects import Scatter

from supcon_pipeline.core.inference.export import ModelProgram
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.search.index import build_index
from tests.conftest import ROOT

RUN = "2026-01-01"
# What is written by a handle, or only for other programs; sources; the record, which has its own tests.
WITHOUT_CHECKSUM = {
    "run_record.RunRecordDataset",
    "tensorboard.TensorBoardDataset",
    "projector.ProjectorDataset",
    "exported.BackboneDataset",
    "progress.ProgressDataset",
    "packing.PackingDataset",
    "digits.DigitsDataset",
    "image_files.ImageFilesDataset",
    "image_folder.ImageFolderDataset",
}


@cache
def program() -> ModelProgram:
    module = torch.nn.Linear(3, 2)
    exported = torch.export.export(module, (torch.ones(2, 3),))
    return ModelProgram(exported, {"outputs": ["embedding"], "class_names": ["a"]})


def onnx_model() -> Any:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "graph", ends[:1], ends[1:])
    return helper.make_model(graph, doc_string="What it computes. " * 99)


def table() -> pd.DataFrame:
    return pd.DataFrame({"id": [f"image/{row}" for row in range(99)], "score": np.arange(99.0)})


def figure() -> Figure:
    drawn = Figure()
    drawn.add_subplot().plot([1, 2, 3])
    return drawn


def index() -> Any:
    return build_index(np.eye(9, dtype=np.float32), 0, num_links=4, ef_construction=20, ef_search=33)


def packed() -> np.ndarray:
    return np.full((9, 8, 8, 3), 7, np.uint8)


def tensors() -> NamedTensors:
    return NamedTensors({"a": torch.ones(9, 9)}, {"epoch": 1})


VALUES: dict[str, Callable[[], Any]] = {
    "documents.JSONDataset": lambda: {str(number): number / 7 for number in range(99)},
    "optional.OptionalJSONDataset": lambda: {str(number): number / 7 for number in range(99)},
    "documents.TextDataset": lambda: "A page of many words. " * 99,
    "tables.CSVDataset": table,
    "tables.ParquetDataset": table,
    "optional.OptionalParquetDataset": table,
    "figure.FigureDataset": figure,
    "optional.OptionalFigureDataset": figure,
    "figure.InteractiveFigureDataset": lambda: InteractiveFigure(Scatter(y=list(range(99)))),
    "packed_images.PackedImagesDataset": packed,
    "optional.OptionalPackedImagesDataset": packed,
    "named_tensors.NamedTensorsDataset": tensors,
    "optional.OptionalNamedTensorsDataset": tensors,
    "faiss_index.FaissIndexDataset": index,
    "optional.OptionalFaissIndexDataset": index,
    "exported.ProgramDataset": program,
    "exported.OnnxDataset": onnx_model,
}


def catalog_entries() -> dict[str, dict[str, Any]]:
    """The first entry of the catalog of each type, by the end of the name of the type."""
    entries = yaml.safe_load((ROOT / "conf/base/catalog.yml").read_text())
    found: dict[str, dict[str, Any]] = {}
    for name, entry in entries.items():
        if not name.startswith("_"):
            found.setdefault(entry["type"].removeprefix("supcon_pipeline.datasets."), entry)
    return found


def open_artifact(kind: str, folder: Path) -> tuple[Any, Path]:
    """A dataset as the catalog has it of a kind; and the file of the artifact."""
    entry = catalog_entries()[kind]
    place = folder / f"artifact{Path(entry['filepath']).suffix}"
    catalog = DataCatalog.from_config(
        {"artifact": {**entry, "filepath": str(place)}}, load_versions={"artifact": RUN}, save_version=RUN
    )
    return catalog.get("artifact"), place / RUN / place.name
