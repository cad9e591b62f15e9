from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro_datasets.json import JSONDataset

from supcon_pipeline.results import print_results
from tests.conftest import run_session


def test_a_file_outside_the_project_is_shown_by_its_whole_path(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "elsewhere" / "pixel_metrics.json"
    entry = f"\npixel_metrics: {{type: json.JSONDataset, filepath: {file}, versioned: true}}\n"
    with (project / "conf/tiny/catalog.yml").open("a") as catalog:
        catalog.write(entry)
    run_id = run_session(project, node_names=["evaluation.score_pixels"])
    assert f"{file / run_id / file.name}\n" in capsys.readouterr().out


def test_what_is_held_in_memory_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = pipeline([node(lambda: ({}, {}), None, ["kept", "passing"], name="make")])
    kept = JSONDataset(filepath=str(tmp_path / "data/08_reporting/kept.json"))
    catalog = DataCatalog({"kept": kept, "passing": MemoryDataset()})
    print_results({"run_id": "mine", "env": None}, made, catalog, tmp_path)
    words = capsys.readouterr().out
    assert "Run mine has made 1 artifacts" in words
    assert "kept                 data/08_reporting/kept.json\n" in words
