import re
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from tests.conftest import read_catalog, run_session


def code_block(markdown: str) -> str:
    """The first block of Python in a page."""
    found = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture(scope="module")
def exported(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, exported once; only to be read."""
    copy = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(finished_project, copy)
    run_session(copy, pipeline_names=["export"])
    return copy


def test_the_files_give_what_evaluation_says_of_the_same_images(exported: Path) -> None:
    from supcon_pipeline.core.export import run_onnx, run_program

    catalog = read_catalog(exported)
    samples, predictions = catalog.load("samples"), catalog.load("predictions")
    images = catalog.load("prepared_images")[(samples["split"] == "test").to_numpy()]
    expected = predictions["predicted"].to_numpy()
    for outputs in (
        run_onnx(catalog.load("classifier_onnx"), images),
        run_program(catalog.load("classifier_program"), images),
    ):
        np.testing.assert_array_equal(outputs["probabilities"].argmax(axis=1), expected)
        np.testing.assert_allclose(
            outputs["probabilities"].max(axis=1), predictions["probability"], atol=1e-4
        )


def test_the_check_of_the_export_is_written_for_every_file_and_output(exported: Path) -> None:
    check = read_catalog(exported).load("export_check")
    assert check["num_images"] == 24
    assert [len(outputs) for outputs in check["differences"].values()] == [1, 1, 3, 3]
    assert all(0 <= value < 1e-2 for outputs in check["differences"].values() for value in outputs.values())


def test_the_code_of_the_model_card_runs_beside_the_file(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = exported.glob("data/06_models/tiny/classifier_onnx.onnx/*/classifier_onnx.onnx")
    monkeypatch.chdir(model.parent)
    code = code_block(read_catalog(exported).load("model_card"))
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out.strip() in ("0", "1", "2")


def test_an_export_that_differs_by_more_than_the_tolerance_is_refused(exported: Path) -> None:
    params: dict[str, Any] = {"export": {"tolerance": 1e-12}}
    nodes = ["export.check_export"]
    with pytest.raises(click.ClickException, match="must differ from the original by at most"):
        run_session(exported, pipeline_names=["export"], node_names=nodes, runtime_params=params)
