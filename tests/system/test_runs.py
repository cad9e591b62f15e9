import json
from pathlib import Path

import click
import pytest
from kedro.io import DatasetError

from supcon_pipeline.core.metrics.classification import without_tables
from supcon_pipeline.pipeline_registry import register_pipelines
from tests.conftest import Kedro, make_project, read_catalog, run_session
from tests.tiny import write_digits

DATA = ("prepared_images", "samples", "dataset_card")


def versions(project: Path, name: str, env: str = "tiny") -> list[str]:
    return sorted(path.parent.name for path in project.glob(f"data/*/{env}/{name}/*/{name}"))


def test_the_whole_run_makes_every_artifact_under_one_version(finished_project: Path) -> None:
    files = [path for path in finished_project.glob("data/*/tiny/*.*/*/*") if path.is_file()]
    files += finished_project.glob("data/*/tiny/tensorboard/projector/*/projector")
    assert {path.parent.name for path in files} == {"2026-01-01"}
    made = {path.name.partition(".")[0] for path in files}
    assert made == {*register_pipelines()["__default__"].all_outputs(), "run_record"}


def test_metrics_name_the_run_the_data_the_checkpoint_and_every_test_image(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    metrics, card = catalog.load("metrics"), catalog.load("dataset_card")
    assert metrics["run_id"] == "2026-01-01"
    assert metrics["data_hash"] == card["data_hash"]
    assert metrics["num_images"] == sum(card["counts"]["test"].values())
    assert metrics["checkpoint"]["encoder"]["run_id"] == "2026-01-01"
    assert metrics["baseline_differs"] == []
    assert {"projection", "embedding", "classifier", "pixels"} <= metrics.keys()
    assert 0 <= metrics["embedding"]["precision_at_1"] <= 1
    assert 0 <= metrics["classifier"]["accuracy"] <= 1


def test_predictions_hold_one_row_per_test_image(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    samples, predictions = catalog.load("samples"), catalog.load("predictions")
    assert predictions["id"].tolist() == samples.loc[samples["split"] == "test", "id"].tolist()
    agreement = (predictions["predicted"] == predictions["label"]).mean()
    assert catalog.load("classifier_metrics")["accuracy"] == pytest.approx(agreement)


def test_classifiers_are_scored_alike_and_calibrated(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    metrics = catalog.load("metrics")
    groups = [metrics["classifier"], metrics["knn"], metrics["baseline"]["classifier"]]
    names = ("classifier_metrics", "knn_metrics", "baseline_classifier_metrics")
    whole = [catalog.load(name) for name in names]
    assert groups == [without_tables(scores) for scores in whole]
    assert len({frozenset(group) for group in groups}) == 1
    for group in whole:
        low, high = group["intervals"]["accuracy"]
        assert low <= group["accuracy"] <= high
        assert sum(group["calibrated"]["reliability"]["count"]) == metrics["num_images"]
    assert metrics["knn"]["accuracy"] == metrics["embedding"]["knn_accuracy"]


def test_embeddings_name_their_samples(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    ids = catalog.load("samples")["id"].tolist()
    for name in ("embeddings", "baseline_embeddings"):
        embeddings = catalog.load(name)
        assert embeddings.metadata["sample_ids"] == ids
        assert len(embeddings.tensors["embedding"]) == len(ids)


def test_neighbours_of_every_test_image_are_training_images_nearest_first(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    samples, neighbours = catalog.load("samples"), catalog.load("neighbours")
    assert (
        neighbours["query"].drop_duplicates().tolist() == samples.index[samples["split"] == "test"].tolist()
    )
    assert (samples["split"].to_numpy()[neighbours["reference"]] == "train").all()
    for _, group in neighbours.groupby("query"):
        assert group["rank"].tolist() == list(range(10))
        assert group["similarity"].is_monotonic_decreasing
    nearest = neighbours[neighbours["rank"] == 0]
    labels = samples["label"].to_numpy()
    hits = labels[nearest["query"]] == labels[nearest["reference"]]
    assert hits.mean() == pytest.approx(catalog.load("metrics")["embedding"]["precision_at_1"])


def test_suspicious_labels_and_confused_pairs_speak_of_the_samples(finished_project: Path) -> None:
    catalog = read_catalog(finished_project)
    samples, suspicious = catalog.load("samples"), catalog.load("suspicious_labels")
    assert suspicious["id"].tolist() == samples["id"].iloc[suspicious["sample"]].tolist()
    assert (suspicious["suggested"] != suspicious["label"]).all()
    assert suspicious["suspicion"].is_monotonic_decreasing
    metrics, pairs = catalog.load("classifier_metrics"), catalog.load("confused_pairs")
    num_wrong = (1 - metrics["accuracy"]) * catalog.load("metrics")["num_images"]
    assert pairs["count"].sum() == pytest.approx(num_wrong)


def test_tensorboard_has_the_scalars_of_both_stages(finished_project: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for stage, metric in (("stage1", "epoch/embedding.precision_at_1"), ("stage2", "epoch/accuracy")):
        folder = finished_project / "data/08_reporting/tiny/tensorboard" / stage / "2026-01-01"
        events = EventAccumulator(str(folder)).Reload()
        assert len(events.Scalars(metric)) == 2
        assert {"step/loss", "step/lr", "step/images_per_second"} <= set(events.Tags()["scalars"])


def test_the_same_seed_gives_the_same_metrics_bit_for_bit(
    finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = make_project(tmp_path / "again")
    monkeypatch.setenv("SUPCON_RUN_ID", "2026-01-01")
    run_session(again)
    (first,) = finished_project.glob("data/08_reporting/tiny/metrics.json/*/metrics.json")
    (second,) = again.glob("data/08_reporting/tiny/metrics.json/*/metrics.json")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", sorted(register_pipelines().keys() - {"__default__"}))
def test_each_pipeline_runs_alone_from_what_the_catalog_holds(project: Path, name: str) -> None:
    write_digits(project / "new")
    params = {task: {"path": str(project / "new")} for task in ("inference", "out_of_distribution")}
    run_id = run_session(project, pipeline_names=[name], runtime_params=params)
    made = register_pipelines()[name].all_outputs()
    files = {path.name.partition(".")[0] for path in project.glob(f"data/*/tiny/**/{run_id}/*")}
    assert made <= files


def test_evaluation_alone_repeats_the_metrics_of_the_run_it_reads(project: Path) -> None:
    before = read_catalog(project).load("metrics")
    run_id = run_session(project, pipeline_names=["evaluation"])
    after = read_catalog(project).load("metrics")
    assert after == {**before, "run_id": run_id}


def test_the_report_has_what_belongs_to_its_run_and_does_without_the_rest(project: Path) -> None:
    def report() -> str:
        run_session(project, node_names=["visualization.write_report"])
        page: str = read_catalog(project).load("report")
        return page

    title, heading = "Learning-rate range test of stage 1", "Images of another kind"
    page = report()
    assert title not in page
    assert heading not in page
    write_digits(project / "new")
    params = {"out_of_distribution": {"path": str(project / "new")}}
    run_session(project, pipeline_names=["stage1_lr_finder"])
    run_session(project, pipeline_names=["out_of_distribution"], runtime_params=params)
    found = read_catalog(project).load("out_of_distribution_metrics")
    page = report()
    assert title in page
    assert f"AUROC {found['auroc']:.4f}" in page
    # They are of the images and of the encoder that there were, and of no other.
    run_session(project, pipeline_names=["stage1", "swa", "stage2", "evaluation", "visualization"])
    page = read_catalog(project).load("report")
    assert title in page
    assert heading not in page


def test_what_is_made_for_the_report_is_in_that_of_the_same_command(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_session(project, pipeline_names=["visualization", "stage2_lr_finder"])
    suggested = read_catalog(project).load("stage2_lr_suggestion")["suggested_lr"]
    assert f"--params stage2.optimizer.lr={suggested:.2g}" in capsys.readouterr().out
    assert "Learning-rate range test of stage 2" in read_catalog(project).load("report")


def test_a_single_node_runs_again(project: Path) -> None:
    run_id = run_session(project, node_names=["evaluation.score_features"])
    assert versions(project, "feature_metrics.json") == ["2026-01-01", run_id]
    assert versions(project, "embeddings.safetensors") == ["2026-01-01"]


def test_a_run_reads_whole_runs_and_never_the_latest_of_each(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a new encoder, the old classifier is no longer part of the newest run."""
    newer = run_session(project, pipeline_names=["stage1"], runtime_params={"seed": 1})
    newest = run_session(project, node_names=["stage1_swa.average_checkpoints"])
    assert versions(project, "encoder.safetensors") == ["2026-01-01", newest]
    run_session(project, pipeline_names=["evaluation"])
    assert f"Reading run 2026-01-01: the newer {newest} has no classifier" in caplog.text
    record = read_catalog(project).load("run_record")
    assert record["base"] == "2026-01-01"
    assert newer not in record["base_artifacts"].values()


def test_a_notebook_sees_one_run_and_nothing_that_no_longer_belongs_to_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_session(project, pipeline_names=["stage1"], runtime_params={"seed": 1})
    newest = run_session(project, node_names=["stage1_swa.average_checkpoints"])
    catalog = read_catalog(project)
    assert catalog.load("encoder").metadata["run_id"] == catalog.load("run_record")["base"]
    assert catalog.load("run_record")["run_id"] == newest
    assert not catalog.exists("metrics")
    monkeypatch.setenv("SUPCON_RUN_ID", "2026-01-01")
    catalog = read_catalog(project)
    assert catalog.load("encoder").metadata["run_id"] == catalog.load("metrics")["run_id"] == "2026-01-01"
    monkeypatch.setenv("SUPCON_RUN_ID", "2026-01-02")
    with pytest.raises(
        click.ClickException, match="must be a run of this experiment to be shown, got 2026-01-02"
    ):
        read_catalog(project)


def test_stage_2_after_a_new_encoder_reads_that_encoder(project: Path) -> None:
    run_session(project, pipeline_names=["stage1"], runtime_params={"seed": 1})
    newest = run_session(project, node_names=["stage1_swa.average_checkpoints"])
    run_session(project, pipeline_names=["stage2"])
    assert read_catalog(project).load("run_record")["base_artifacts"]["encoder"] == newest


def test_a_classifier_of_another_encoder_is_refused(project: Path) -> None:
    run_session(project, pipeline_names=["stage1"], runtime_params={"seed": 1})
    newest = run_session(project, node_names=["stage1_swa.average_checkpoints"])
    pins = {"encoder": newest, "classifier": "2026-01-01"}
    with pytest.raises(click.ClickException, match="encoder_hash of the classifier must be"):
        run_session(project, pipeline_names=["evaluation"], load_versions=pins)


def test_an_encoder_of_other_data_is_refused(project: Path) -> None:
    newest = run_session(project, pipeline_names=["data_prep"], runtime_params={"data_prep": {"seed": 3}})
    pins = dict.fromkeys(("prepared_images", "samples", "dataset_card"), newest)
    pins |= dict.fromkeys(("encoder", "classifier", "baseline_model"), "2026-01-01")
    with pytest.raises(click.ClickException, match="data_hash of the encoder must be"):
        run_session(project, pipeline_names=["evaluation"], load_versions=pins)


def test_a_model_says_the_parameters_of_its_training_and_not_of_the_run_that_reads_it(project: Path) -> None:
    trained = read_catalog(project).load("run_record")["parameters"]
    changed = {"stage1": {"loss": {"temperature": 0.456}}, "stage2": {"label_smoothing": 0.345}}
    for name in ("evaluation", "export", "visualization"):
        run_session(project, pipeline_names=[name], runtime_params=changed)
    catalog = read_catalog(project)
    checkpoints = catalog.load("metrics")["checkpoint"]
    assert checkpoints["encoder"]["parameters"] == trained["stage1"]
    assert checkpoints["classifier"]["parameters"] == trained["stage2"]
    assert checkpoints["baseline"]["parameters"]["schedule"] == trained["stage1"]["schedule"]
    for page in (catalog.load("model_card"), catalog.load("report").replace("&#34;", '"')):
        assert '"num_epochs": 2' in page
        assert '"temperature": 0.456' not in page
        assert '"label_smoothing": 0.345' not in page


def test_a_baseline_that_had_fewer_epochs_is_called_another_budget(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = {"stage1": {"schedule": {"num_epochs": 3}}}
    again = ["stage1", "stage2", "swa", "evaluation"]
    run_session(project, pipeline_names=again, runtime_params=longer)
    assert "The baseline was trained with other schedule.num_epochs" in capsys.readouterr().out
    assert read_catalog(project).load("metrics")["baseline_differs"] == ["schedule.num_epochs"]


def test_a_version_chosen_by_hand_brings_its_whole_run(project: Path) -> None:
    before = read_catalog(project).load("metrics")
    again = ["stage1", "stage2", "swa", "evaluation"]
    newer = run_session(project, pipeline_names=again, runtime_params={"seed": 1})
    run_session(project, pipeline_names=["index"])
    assert read_catalog(project).load("embeddings").metadata["checkpoint"]["run_id"] == newer
    run_session(project, pipeline_names=["index"], load_versions={"encoder": "2026-01-01"})
    catalog = read_catalog(project)
    record = catalog.load("run_record")
    assert record["base"] == "2026-01-01"
    assert newer not in record["base_artifacts"].values()
    assert catalog.load("embeddings").metadata["checkpoint"]["run_id"] == "2026-01-01"
    run_id = run_session(project, pipeline_names=["evaluation"], load_versions={"encoder": "2026-01-01"})
    assert read_catalog(project).load("metrics") == {**before, "run_id": run_id}


def test_a_version_that_belongs_to_no_run_with_the_rest_takes_its_place_in_another(project: Path) -> None:
    # The same data again, which is another version of it.
    newest = run_session(project, pipeline_names=["data_prep"])
    chosen = dict.fromkeys(DATA, newest)
    run_session(project, pipeline_names=["stage2"], load_versions={**chosen, "encoder": "2026-01-01"})
    record = read_catalog(project).load("run_record")
    assert {name: record["base_artifacts"][name] for name in chosen} == chosen
    assert record["base_artifacts"]["encoder"] == "2026-01-01"
    assert "embeddings" not in record["base_artifacts"]


def test_a_version_that_was_made_from_other_data_is_refused_before_it_is_trained_on(project: Path) -> None:
    seeded = {"data_prep": {"seed": 3}}
    newest = run_session(project, pipeline_names=["data_prep"], runtime_params=seeded)
    readers = {"encoder": "stage2.train_linear_classifier"}
    readers["stage1_checkpoints"] = "stage1_swa.average_checkpoints"
    for name, node in readers.items():
        chosen = {**dict.fromkeys(DATA, newest), name: "2026-01-01"}
        with pytest.raises(click.ClickException, match=r"data_hash of the \w+ must be .* on this data"):
            run_session(project, node_names=[node], load_versions=chosen)


def test_a_version_of_what_the_run_makes_is_refused(project: Path) -> None:
    with pytest.raises(click.ClickException, match="must be of what the run reads, got encoder, which it ma"):
        run_session(project, load_versions={"encoder": "2026-01-01"})
    assert len(versions(project, "run_record.json")) == 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"raw_images": "2026-01-01"}, "must name artifacts of runs, got raw_images"),
        ({"encoder": "2020-01-01"}, "must name runs that made encoder, got 2020-01-01"),
    ],
)
def test_a_version_that_is_not_there_is_refused(project: Path, chosen: dict[str, str], message: str) -> None:
    with pytest.raises(click.ClickException, match=message):
        run_session(project, pipeline_names=["evaluation"], load_versions=chosen)


def test_a_run_that_has_begun_reads_no_other_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = run_session(project, pipeline_names=["stage1"], runtime_params={"seed": 1})
    monkeypatch.setenv("SUPCON_RUN_ID", "later")
    run_session(project, pipeline_names=["index"], load_versions={"encoder": "2026-01-01"})
    with pytest.raises(
        click.ClickException, match="stage1_checkpoints of run later must be that of 2026-01-01"
    ):
        run_session(project, pipeline_names=["lr_finder"], load_versions={"stage1_checkpoints": other})


def test_many_processes_share_a_run_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    # An id that sorts before every timestamp: "latest" must not decide.
    monkeypatch.setenv("SUPCON_RUN_ID", "0-shared")
    for name in ("data_prep", "stage1"):
        run_session(project, pipeline_names=[name])
    assert versions(project, "samples.parquet") == ["0-shared"]
    assert versions(project, "stage1_history.csv") == ["0-shared"]


def test_a_run_goes_on_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("SUPCON_RUN_ID", "first")
    run_session(project, pipeline_names=["data_prep"])
    with pytest.raises(click.ClickException, match="must be new in run first, got already made"):
        run_session(project, pipeline_names=["data_prep"])
    (samples,) = project.glob("data/*/tiny/samples.parquet/first/samples.parquet")
    stamp = samples.stat().st_mtime_ns
    run_session(project, pipeline_names=["data_prep", "stage1"], only_missing_outputs=True)
    assert samples.stat().st_mtime_ns == stamp
    assert versions(project, "stage1_checkpoints.safetensors") == ["first"]


def test_a_pipeline_without_its_input_says_what_to_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    with pytest.raises(click.ClickException, match=r"got none; run .*data_prep.* first"):
        run_session(project, pipeline_names=["evaluation"])


def test_a_run_id_that_is_no_folder_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPCON_RUN_ID", "../elsewhere")
    with pytest.raises(click.ClickException, match="SUPCON_RUN_ID must be"):
        run_session(make_project(tmp_path / "project"))


def test_two_environments_side_by_side_never_read_each_other(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", ("tiny", "other"))
    run_session(project, env="tiny", pipeline_names=["data_prep"])
    other = run_session(project, env="other", pipeline_names=["data_prep"], runtime_params={"seed": 7})
    tiny = run_session(project, env="tiny", pipeline_names=["stage1"])
    assert versions(project, "stage1_checkpoints.safetensors") == [tiny]
    record = read_catalog(project, "tiny").load("run_record")
    assert other not in record["base_artifacts"].values()
    with pytest.raises(DatasetError):
        read_catalog(project, "other").load("stage1_history")


def test_the_record_of_a_run_holds_its_parameters_and_its_experiment(finished_project: Path) -> None:
    record = read_catalog(finished_project).load("run_record")
    assert record["experiment"] == "tiny"
    assert record["parameters"]["stage1"]["schedule"]["num_epochs"] == 2
    assert json.loads(json.dumps(record)) == record


def test_kedro_run_on_the_command_line_says_where_things_are(project: Path, kedro: Kedro) -> None:
    done = kedro(project, "run", "--env", "tiny", "--pipelines", "evaluation,visualization")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        "embedding precision@1",
        "95 % interval",
        "metrics.json",
        "report.html",
        "embedding_map.png",
        "kedro viz run",
    ):
        assert word in done.stdout


def test_the_registry_is_listed_without_torch(project: Path, kedro: Kedro) -> None:
    (project / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = kedro(project, "registry", "list", PYTHONPATH=str(project))
    assert done.returncode == 0, done.stderr
    assert "data_prep" in done.stdout
