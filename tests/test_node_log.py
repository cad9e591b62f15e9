import os
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog
from kedro.io.core import Version
from kedro.pipeline import Node, Pipeline
from kedro_datasets.json import JSONDataset

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.parameters.data import DataPrepParameters
from supcon_pipeline.datasets.progress import ProgressDataset
from supcon_pipeline.datasets.run_record import RunRecordDataset, identify_process
from supcon_pipeline.node_log import open_node
from supcon_pipeline.runs import RunBook
from supcon_pipeline.task_log import TaskLog, describe_nodes, new_entry


def _nothing(*_: Any) -> None:
    """No node of these tests runs."""


INPUTS = ["params:data_prep", "progress"]
MAKE = Node(_nothing, INPUTS, ["samples", "card"], name="make", namespace="data_prep")
FRACTIONS = {"validation_fraction": 0.2, "test_fraction": 0.2}
COUNTS = {"image_size": 8, "num_channels": 3, "seed": 0, "num_workers": 0, "max_rejected": 0}
PARAMETERS = {**FRACTIONS, **COUNTS, "crop": "pad", "on_leakage": "refuse", "near_duplicate_similarity": None}
# With the defaults that were left out, as the record of a job has them.
PLAIN = DataPrepParameters.model_validate(PARAMETERS).model_dump(mode="json")


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    """The book of a process of Dagster in which the run `mine` has begun."""
    version = Version("mine", "mine")
    catalog = DataCatalog(
        {
            **{name: JSONDataset(filepath=str(tmp_path / name), version=version) for name in MAKE.outputs},
            "progress": ProgressDataset(str(tmp_path / "progress")),
            "run_record": RunRecordDataset(filepath=str(tmp_path / "run_record.json"), version=version),
        }
    )
    book = RunBook(catalog, Pipeline([MAKE]))
    book.record_dataset("mine").create(
        {"run_id": "mine", "started": "2026", "base": None, "base_artifacts": {}, "experiment": "base"}
    )
    return book


@pytest.fixture
def job(book: RunBook) -> TaskLog:
    """The log of the job that has begun the run."""
    asked = {"env": "tiny", "pipeline_name": "__default__"}
    nodes = describe_nodes(Pipeline([MAKE]), set())
    entry = new_entry(asked, nodes, {"data_prep": PLAIN, "seed": 0}, None, "not asked")
    return TaskLog(book.catalog.get("run_record"), entry, Pipeline([MAKE]))  # type: ignore[arg-type]


def _make(book: RunBook, log: TaskLog) -> Any:
    """What Dagster does for a node; gives the record as it is then."""
    log.start_node(MAKE.name)
    for name in MAKE.outputs:
        book.catalog.save(name, 1)
        log.save_output(MAKE.name, name)
    return book.catalog.load("run_record")


def test_a_node_with_the_parameters_of_its_job_is_written_down_with_it(book: RunBook, job: TaskLog) -> None:
    assert open_node(book, MAKE, {"params:data_prep": PARAMETERS}, job) is job


def test_the_entry_of_a_node_is_that_of_its_own_process_and_runs_while_that_does(
    book: RunBook, job: TaskLog
) -> None:
    job.entry["process"] = "another"
    other = DataPrepParameters.model_validate({**PARAMETERS, "test_fraction": 0.3})
    log = open_node(book, MAKE, {"params:data_prep": other}, job)
    assert log.entry["process"] == identify_process(os.getpid())
    log.start_node(MAKE.name)
    assert book.catalog.load("run_record")["tasks"][-1]["outcome"] == "running"


def test_a_node_with_other_parameters_than_its_job_is_recorded_with_its_own(
    book: RunBook, job: TaskLog
) -> None:
    """They are changed in the form of a job, of which the catalog knows nothing."""
    other = DataPrepParameters.model_validate({**PARAMETERS, "test_fraction": 0.3})
    record = _make(book, open_node(book, MAKE, {"params:data_prep": other}, job))
    assert record["parameters"] == {"data_prep": {**PLAIN, "test_fraction": 0.3}, "seed": 0}
    job.close("completed")
    assert book.catalog.load("run_record")["outcome"] == "completed"


def test_a_node_in_a_process_of_its_own_says_how_it_ended(book: RunBook, job: TaskLog) -> None:
    # The process that began the run has done so, and is gone.
    job.close("interrupted")
    record = _make(book, open_node(book, MAKE, {"params:data_prep": PARAMETERS}, None))
    assert record["outcome"] == "completed"
    assert record["tasks"][1]["selection"] == {"pipeline_names": ["__default__"]}
    log = open_node(book, MAKE, {"params:data_prep": PARAMETERS}, None)
    log.start_node(MAKE.name)
    log.fail_node(MAKE.name, RuntimeError())
    assert book.catalog.load("run_record")["outcome"] == "failed"


@pytest.mark.usefixtures("job")
def test_the_progress_of_a_complete_training_is_removed_by_the_process_that_used_it(
    book: RunBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[bool] = []
    monkeypatch.setattr(ProgressDataset, "clear", lambda _: cleared.append(True))
    _make(book, open_node(book, MAKE, {"params:data_prep": PARAMETERS}, None))
    assert cleared == [True]


def test_what_a_failed_job_has_left_of_a_node_is_made_again(
    book: RunBook, job: TaskLog, caplog: pytest.LogCaptureFixture
) -> None:
    book.catalog.save("samples", 0)
    _make(book, open_node(book, MAKE, {"params:data_prep": PARAMETERS}, job))
    assert book.catalog.load("samples") == 1
    assert "Making samples of run mine again" in caplog.text


@pytest.mark.parametrize("read", ["another", "mine"])
def test_processes_that_share_no_id_are_refused(book: RunBook, read: str) -> None:
    """Else each would read the newest run, and the artifacts of the one before for those not there yet."""
    record: Any = book.catalog.get("run_record")
    record._version = Version(read, "2026-01-01T00.00.00.000Z")
    with pytest.raises(CommandError, match=r"^SUPCON_RUN_ID must be set .* got none; set SUPCON_RUN_ID to"):
        open_node(book, MAKE, {"params:data_prep": PARAMETERS}, None)
