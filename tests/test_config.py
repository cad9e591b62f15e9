import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from supcon_pipeline.commands import CommandError
from supcon_pipeline.config import ExperimentConfigLoader
from tests.conftest import ROOT, make_project, read_catalog, run_session


def test_a_path_below_the_home_folder_may_be_written_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for class_name in ("cat", "dog"):
        folder = tmp_path / "home/photos" / class_name
        folder.mkdir(parents=True)
        for index in range(4):
            Image.new("L", (8, 8), 10 * index + (class_name == "cat")).save(folder / f"{index}.png")
    project = make_project(tmp_path / "project", ())
    params = {"images": {"path": "~/photos"}, "data_prep": {"image_size": 8, "num_workers": 0}}
    run_session(project, env="images", pipeline_names=["data_prep"], runtime_params=params)
    card = read_catalog(project, "images").load("dataset_card")
    assert (card["num_images"], card["source"]) == (8, str(tmp_path / "home/photos"))


def test_every_other_path_of_the_catalog_is_one_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project", ())
    (project / "conf/mine").mkdir()
    (project / "conf/mine/catalog.yml").write_text("""
raw_images:
  type: supcon_pipeline.datasets.torchvision_images.TorchvisionImagesDataset
  name: CIFAR10
  filepath: data/01_raw/cifar10
table_at_home:
  type: supcon_pipeline.datasets.image_table.ImageTableDataset
  filepath: ~/table.csv
  folder: ~/photos
""")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    catalog = read_catalog(project, "mine")
    assert catalog.get("raw_images").filepath == project / "data/01_raw/cifar10"
    table = catalog.get("table_at_home")
    assert (table.filepath, table.folder) == (tmp_path / "home/table.csv", tmp_path / "home/photos")


def test_files_are_read_once_and_what_one_reader_changes_another_does_not_see(tmp_path: Path) -> None:
    conf = make_project(tmp_path / "project", ()) / "conf"
    arguments = {"env": "images", "base_env": "base", "default_run_env": "local"}
    loader = ExperimentConfigLoader(str(conf), **arguments, runtime_params={"images": {"path": "photos"}})
    catalog = loader["catalog"]
    assert catalog["raw_images"]["path"] == "photos"
    loader["parameters"]["images"]["path"] = "elsewhere"
    catalog["raw_images"].clear()
    shutil.rmtree(conf)
    assert loader["parameters"]["images"]["path"] == "photos"
    assert loader["catalog"]["raw_images"]["path"] == "photos"


def test_what_is_set_by_hand_takes_the_place_of_what_was_read(tmp_path: Path) -> None:
    conf = make_project(tmp_path / "project", ()) / "conf"
    loader = ExperimentConfigLoader(str(conf), env="images", base_env="base", default_run_env="local")
    assert loader["catalog"]["raw_images"]["path"] is None
    loader["parameters"] = {"images": {"path": "photos"}}
    assert loader["parameters"] == {"images": {"path": "photos"}}
    assert loader["catalog"]["raw_images"]["path"] == "photos"


def test_a_folder_without_configuration_has_that_of_the_package(tmp_path: Path) -> None:
    arguments = {"base_env": "base", "default_run_env": "local"}
    loader = ExperimentConfigLoader(str(tmp_path / "conf"), env="images", **arguments)
    assert loader.experiment == "images"
    assert loader["parameters"]["stage1"]["backbone"] == read_parameters("images")["stage1"]["backbone"]


def read_parameters(env: str) -> Any:
    return yaml.safe_load((ROOT / "conf" / env / "parameters.yml").read_text())


@pytest.mark.parametrize("is_project", [True, False])
def test_a_folder_with_half_a_configuration_is_refused(tmp_path: Path, is_project: bool) -> None:
    (tmp_path / "conf/local").mkdir(parents=True)
    if is_project:
        (tmp_path / "conf/local").rmdir()
        (tmp_path / "pyproject.toml").write_text("[tool.kedro]")
    with pytest.raises(CommandError, match=r"must have the folder base, got none in .*; .*init <folder>$"):
        ExperimentConfigLoader(str(tmp_path / "conf"), base_env="base", default_run_env="local")


def test_the_folder_of_the_own_machine_may_be_absent(tmp_path: Path) -> None:
    conf = make_project(tmp_path / "project", ()) / "conf"
    shutil.rmtree(conf / "local")
    loader = ExperimentConfigLoader(str(conf), base_env="base", default_run_env="local")
    assert loader.experiment == "base"
    assert "stage1" in loader["parameters"]


def test_an_unknown_experiment_is_told_from_those_of_an_archive(tmp_path: Path) -> None:
    make_project(tmp_path / "project", ())
    archive = shutil.make_archive(str(tmp_path / "conf"), "gztar", tmp_path / "project", "conf")
    arguments = {"base_env": "base", "default_run_env": "local"}
    assert ExperimentConfigLoader(archive, env="images", **arguments)["parameters"]["stage1"]
    with pytest.raises(CommandError, match=r"^env must be one of base, cifar10, .*, got 'imags'"):
        ExperimentConfigLoader(archive, env="imags", **arguments)


@pytest.mark.parametrize("name", ["copy [1]", "what?", "all*"])
def test_a_project_in_whose_path_nothing_would_be_found_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match=r"must have no \*, \? or \[ in its path, got .*; rename"):
        ExperimentConfigLoader(str(tmp_path / name / "conf"))
    ExperimentConfigLoader(str(tmp_path / "copy (1) {a} #1" / "conf"))


def _places(project: Path) -> dict[str, str]:
    """The paths in the catalog of the tiny experiment, by name."""
    loader = ExperimentConfigLoader(
        str(project / "conf"), env="tiny", base_env="base", default_run_env="local"
    )
    entries = loader["catalog"].items()
    return {name: entry["filepath"] for name, entry in entries if "filepath" in entry}


def test_one_line_moves_all_artifacts_and_nothing_else(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    before = _places(project)
    assert before["encoder"] == "data/06_models/tiny/encoder.safetensors"
    assert before["packing_store"] == "data/02_intermediate/tiny/packing"
    assert all(place.startswith("data/0") for place in before.values())
    (project / "conf/tiny/globals.yml").write_text("root: s3://bucket/mine/")
    local = {"packing_store", "{stage}_progress"}
    assert _places(project) == {
        name: place if name in local else place.replace("data/", "s3://bucket/mine/", 1)
        for name, place in before.items()
    }


@pytest.mark.parametrize("root", ["", "7", "[a]", "s3://bucket/*", "'data[1]'"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, root: str) -> None:
    project = make_project(tmp_path / "project")
    (project / "conf/tiny/globals.yml").write_text(f"root: {root}")
    with pytest.raises(CommandError, match=r"^root in globals.yml must be a folder or an address"):
        _places(project)


def test_a_bucket_without_its_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(protocol: str) -> None:
        raise ImportError(f"Install what {protocol} needs")

    monkeypatch.setattr("fsspec.get_filesystem_class", fail)
    project = make_project(tmp_path / "project")
    (project / "conf/tiny/globals.yml").write_text("root: s3://bucket")
    with pytest.raises(
        CommandError, match=r"got none for s3://bucket/.*; type pip install 'supcon_pipeline\[s3"
    ):
        run_session(project, pipeline_names=["data_prep"])
    assert not (project / "data").exists()
