"""The catalog, as each experiment has it: where every artifact goes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.framework.context import CatalogCommandsMixin
from kedro.io import DataCatalog, MemoryDataset
from kedro.io.core import is_parameter

from supcon_pipeline.pipeline_registry import register_pipelines, whole_graph
from supcon_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
from tests.conftest import ROOT

EXPERIMENTS = sorted(
    path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "local"
)
PIPELINES_BY_NAME = register_pipelines()
PIPELINES = PIPELINES_BY_NAME.values()


def read_entries(experiment: str) -> dict[str, Any]:
    entries: dict[str, Any] = CONFIG_LOADER_CLASS(ROOT / "conf", env=experiment, **CONFIG_LOADER_ARGS)[
        "catalog"
    ]
    return entries


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_artifact_of_a_pipeline_is_kept_in_a_file_of_its_own_and_of_the_experiment(
    experiment: str,
) -> None:
    catalog = DataCatalog.from_config(read_entries(experiment))
    datasets = {name: catalog.get(name) for pipeline in PIPELINES for name in pipeline.all_outputs()}
    assert len(datasets) > 60
    assert [name for name, dataset in datasets.items() if isinstance(dataset, MemoryDataset | None)] == []
    paths = {name: Path(dataset._filepath) for name, dataset in datasets.items()}
    assert len(set(paths.values())) == len(paths)
    assert [name for name, path in paths.items() if experiment not in path.parts] == []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_entry_has_a_layer_and_is_used(experiment: str) -> None:
    catalog = DataCatalog.from_config(entries := read_entries(experiment))
    names = {name for pipeline in PIPELINES for name in pipeline.datasets()} | {"run_record"}
    names = {name for name in names if not name.startswith(("params:", "parameters"))}
    assert [name for name in names if not catalog.get(name).metadata["kedro-viz"]["layer"]] == []
    patterns = {catalog.config_resolver.match_dataset_pattern(name) for name in names}
    assert entries.keys() - names - patterns == set()


def test_the_first_layer_has_images_alone_and_the_last_whatever_the_report_shows() -> None:
    """In Kedro-Viz, lines from further up would cross all others."""
    catalog = DataCatalog.from_config(read_entries("base"))
    names = [name for name in whole_graph().datasets() if not is_parameter(name)]
    layers = {name: catalog.get(name).metadata["kedro-viz"]["layer"] for name in names}
    raw = {name for name, layer in layers.items() if layer == "raw"}
    assert raw == {"raw_images", "inference_images", "enrol_images", "outside_images"}
    given = PIPELINES_BY_NAME["__default__"].inputs() & PIPELINES_BY_NAME["visualization"].inputs()
    shown = {name: layers[name] for name in given - {"run_record"} if not is_parameter(name)}
    assert set(shown.values()) == {"reporting"}


class _Catalog(CatalogCommandsMixin, DataCatalog):
    """The catalog as the commands of Kedro have it."""


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_resolved_patterns_are_yaml_from_which_the_same_catalog_is_made(experiment: str) -> None:
    """As `kedro catalog resolve-patterns` prints them."""
    catalog = _Catalog.from_config(read_entries(experiment), save_version="2026-01-01")
    datasets = {name: catalog.get(name) for name in whole_graph().datasets() if not is_parameter(name)}
    resolved = yaml.safe_load(yaml.dump(catalog.resolve_patterns([whole_graph()])))
    again = DataCatalog.from_config(resolved, save_version="2026-01-01")
    assert resolved.keys() >= datasets.keys()
    for name, dataset in datasets.items():
        assert again.get(name)._describe() == dataset._describe(), name
        assert type(again.get(name)) is type(dataset)
        assert not {"args", "kwargs", "version"} & resolved[name].keys(), name


@pytest.mark.parametrize(
    "name", ["nonsense", "x_y", "stage1", "stage1_output", "encoder_weights", "my_metrics"]
)
def test_a_name_that_nobody_planned_is_no_entry(name: str) -> None:
    catalog = DataCatalog.from_config(read_entries("base"))
    assert name not in catalog
    assert catalog.get(name) is None
