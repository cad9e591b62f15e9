"""A run whose artifacts lie in an object store: moto's server, asked by s3fs."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from supcon_pipeline import load_encoder
from supcon_pipeline.cli import runs
from supcon_pipeline.core.named_tensors import fingerprint
from tests.conftest import make_project, read_catalog, run_session
from tests.system.kills import LONGER, kill_while_training
from tests.tiny import write_digits

pytestmark = pytest.mark.skipif(
    not (find_spec("s3fs") and find_spec("moto")), reason="needs the extras s3 and dev-extras"
)
RUN_ID = "2026-01-01"
REPORTS = "bucket/mine/08_reporting/tiny"
# Makes a project on a machine that has nothing of the bucket.
Elsewhere = Callable[..., Path]


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """The file system of a server with an empty bucket, as every process here finds it."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # It tells of each request.
        patch.setattr(logging.getLogger("werkzeug"), "disabled", True)
        S3FileSystem.clear_instance_cache()
        file_system = S3FileSystem(use_listings_cache=False)
        file_system.mkdir("bucket")
        yield file_system
        S3FileSystem.clear_instance_cache()
    server.stop()


def make_elsewhere(folder: Path, patch: pytest.MonkeyPatch, root: str = "s3://bucket/mine") -> Path:
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    project = make_project(folder / "project")
    (project / "conf/tiny/globals.yml").write_text(f"root: {root}\n")
    return project


@pytest.fixture(scope="module")
def begun(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A run that has trained on one machine and was finished on another, by the bucket alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPCON_RUN_ID", RUN_ID)
        first = make_elsewhere(tmp_path_factory.mktemp("first"), patch)
        run_session(first, pipeline_names=["data_prep", "stage1", "stage1_swa"])
        shutil.rmtree(first)
        second = make_elsewhere(tmp_path_factory.mktemp("second"), patch)
        run_session(second, only_missing_outputs=True)
    return second


@pytest.fixture
def elsewhere(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:  # noqa: ARG001
    return lambda **named: make_elsewhere(tmp_path, monkeypatch, **named)


def test_what_a_run_has_made_is_that_of_a_local_run(elsewhere: Elsewhere, finished_catalog: Any) -> None:
    catalog = read_catalog(elsewhere())
    assert catalog.load("metrics") == finished_catalog.load("metrics")
    for name in ("stage1_checkpoints", "classifier", "embeddings"):
        assert fingerprint(catalog.load(name)) == fingerprint(finished_catalog.load(name))
    tasks = catalog.load("run_record")["tasks"]
    assert [task["outcome"] for task in tasks] == ["completed", "completed"]
    outcomes = {node["outcome"] for node in tasks[1]["nodes"].values()}
    assert outcomes == {"kept", "completed"}


def test_only_progress_and_packings_are_in_the_folder(begun: Path) -> None:
    files = [path.relative_to(begun) for path in begun.rglob("data/**/*") if path.is_file()]
    assert {str(path.parent) for path in files} <= {"data/02_intermediate/tiny/packing"}
    assert not (begun / "s3:").exists()


def test_curves_and_folders_are_there_with_their_checksums(begun: Path, s3: Any) -> None:  # noqa: ARG001
    for folder in (f"{REPORTS}/tensorboard/{stage}/{RUN_ID}" for stage in ("stage1", "stage2", "baseline")):
        names = {path.rpartition("/")[2] for path in s3.find(folder)}
        assert "events.xxh128" in names
        assert any(name.startswith("events.out.tfevents") for name in names)
    assert s3.exists(f"{REPORTS}/tensorboard/projector/{RUN_ID}/projector.xxh128")


def test_evaluation_elsewhere_gives_the_same_metrics(elsewhere: Elsewhere, finished_catalog: Any) -> None:
    project = elsewhere()
    run_id = run_session(project, pipeline_names=["evaluation"])
    catalog = read_catalog(project)
    record, metrics = catalog.load("run_record"), catalog.load("metrics")
    assert (record["run_id"], record["base"]) == (run_id, RUN_ID)
    assert metrics == {**finished_catalog.load("metrics"), "run_id": run_id}


def test_a_killed_training_goes_on_to_the_same_end_in_the_bucket(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = elsewhere(root="s3://bucket/killed")
    monkeypatch.setenv("SUPCON_RUN_ID", "killed")
    run_session(project, pipeline_names=["data_prep"])
    kill_while_training(project)
    assert not read_catalog(project).exists("stage1_checkpoints")
    run_session(project, pipeline_names=["stage1"], runtime_params=LONGER)
    assert "Resuming stage 1 after epoch" in caplog.text
    resumed = read_catalog(project).load("stage1_checkpoints")
    monkeypatch.setenv("SUPCON_RUN_ID", "undisturbed")
    run_session(project, pipeline_names=["stage1"], runtime_params=LONGER)
    undisturbed = read_catalog(project).load("stage1_checkpoints")
    assert fingerprint(resumed) == fingerprint(undisturbed)


def test_the_encoder_of_the_bucket_embeds_as_that_of_a_local_run(
    elsewhere: Elsewhere, finished_project: Path, tmp_path: Path
) -> None:
    images = write_digits(tmp_path / "images")
    found = load_encoder(elsewhere(), "tiny", RUN_ID).embed(images)
    np.testing.assert_array_equal(found, load_encoder(finished_project, "tiny").embed(images))


def test_kedro_viz_has_a_preview_of_each_kind(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPCON_RUN_ID", RUN_ID)
    catalog = read_catalog(elsewhere())
    for name in ("metrics", "samples", "stage1_history", "embedding_map", "interactive_map"):
        assert catalog.get(name).preview()


@pytest.fixture
def type_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Types `kedro runs` in the folder of a project; gives what is printed."""

    def run(project: Path, *arguments: str) -> str:
        monkeypatch.chdir(project)
        return CliRunner().invoke(runs, [*arguments, "--env", "tiny"]).output

    return run


def test_runs_in_the_bucket_are_listed_and_shown(
    elsewhere: Elsewhere, type_command: Callable[..., str]
) -> None:
    project = elsewhere()
    [listed] = [run for run in json.loads(type_command(project, "list", "--json")) if run["id"] == RUN_ID]
    assert (listed["experiment"], listed["outcome"]) == ("tiny", "completed")
    shown = type_command(project, "show", RUN_ID)
    assert f"s3://{REPORTS}/metrics.json/{RUN_ID}/metrics.json" in shown
    assert "kedro run --env tiny" in type_command(project, "reproduce", RUN_ID)


def test_runs_in_the_bucket_are_compared_and_deleted_and_what_no_run_needs_is_removed(
    elsewhere: Elsewhere, type_command: Callable[..., str], s3: Any
) -> None:
    project = elsewhere()
    run_id = run_session(project, pipeline_names=["data_prep"])
    s3.pipe_file(f"{REPORTS}/report.html/lost/report.html", b"of no run")
    assert f"{RUN_ID} {run_id}" in " ".join(type_command(project, "compare", RUN_ID, run_id).split())
    pruned = type_command(project, "prune", "--yes")
    assert f"Removed s3://{REPORTS}/report.html/lost, 9 bytes: report of lost, which is no run" in pruned
    assert f"Deleted run {run_id} of tiny, " in type_command(project, "delete", run_id, "--yes")
    assert [path for path in s3.find("bucket") if run_id in path or "/lost/" in path] == []
    assert s3.exists(f"{REPORTS}/run_record.json/{RUN_ID}/run_record.json")


def test_a_byte_that_was_flipped_in_the_bucket_is_refused_by_name(elsewhere: Elsewhere, s3: Any) -> None:
    place = f"bucket/mine/02_intermediate/tiny/prepared_images.npy/{RUN_ID}/prepared_images.npy"
    content = s3.cat_file(place)
    s3.pipe_file(place, content[:-1] + bytes([content[-1] ^ 1]))
    line = rf"^prepared_images.npy of run {RUN_ID} must be as it was saved, got other content; restore s3://"
    try:
        with pytest.raises(click.ClickException, match=line):
            run_session(elsewhere(), node_names=["evaluation.score_pixels"])
    finally:
        s3.pipe_file(place, content)


def test_a_bucket_that_is_not_there_is_one_line(
    elsewhere: Elsewhere, type_command: Callable[..., str]
) -> None:
    project, line = (
        elsewhere(root="s3://nowhere/mine"),
        "must be open to this user, got: The specified bucket",
    )
    with pytest.raises(click.ClickException, match=rf"^s3://nowhere/mine/.* {line} does not exist; check "):
        run_session(project, pipeline_names=["data_prep"])
    listed = type_command(project, "list")
    assert listed.startswith(
        "Error: s3://nowhere/mine/08_reporting/tiny/run_record.json must be open to this"
    )
    assert listed.count("\n") == 1


def test_a_store_that_does_not_answer_is_one_line(
    elsewhere: Elsewhere, type_command: Callable[..., str], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3.clear_instance_cache()
    project = elsewhere()
    try:
        for command in (("list",), ("delete", RUN_ID)):
            told = type_command(project, *command)
            assert told.startswith(
                "Error: s3://bucket/mine/08_reporting/tiny/run_record.json must be open to "
            )
            assert told.count("\n") == 1
        with pytest.raises(click.ClickException, match=r"got: Could not connect .*; check its address and"):
            run_session(project, pipeline_names=["data_prep"])
    finally:
        s3.clear_instance_cache()
