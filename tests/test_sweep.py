"""Searches of parameters: what their files may say, which trials are made, and how their runs end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import DivergenceError, InputError
from supcon_pipeline.core.training.loop import require_finite
from supcon_pipeline.projects import prepare_folder
from supcon_pipeline.run_commands.books import Experiment
from supcon_pipeline.run_commands.sweep import runs as sweep_runs
from supcon_pipeline.run_commands.sweep import search as sweep_search
from supcon_pipeline.run_commands.sweep.checks import plan_sweep
from supcon_pipeline.run_commands.sweep.file import read_sweep
from supcon_pipeline.run_commands.sweep.plan import PlannedRun, SweepPlan, find_versions
from supcon_pipeline.run_commands.sweep.runs import Curve, FailedRunError, HopelessError, SweepRuns
from supcon_pipeline.run_commands.sweep.search import best_trial, open_study, search, settle
from supcon_pipeline.run_commands.sweep.space import Range, Space
from supcon_pipeline.run_commands.sweep.summary import command_with, describe_final, describe_plan
from tests.conftest import ROOT, bootstrap, make_project

METRIC = "stage1.embedding.mean_average_precision_at_r"
TEMPERATURE, LR = "stage1.loss.temperature", "stage1.optimizer.lr"
METRICS = {"num_images": 100, "embedding": {"precision_at_1": 0.9}}
SEARCH: dict[str, Any] = {TEMPERATURE: {"low": 0.02, "high": 1.0, "log": True}, LR: [0.01, 0.1]}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment without runs."""
    project = make_project(tmp_path_factory.mktemp("sweeps") / "project")
    return Experiment(bootstrap(project).project_path, "tiny")


Plan = Callable[..., SweepPlan]


@pytest.fixture
def plan(experiment: Experiment, tmp_path: Path) -> Plan:
    """Write a file of a sweep, and read it; a key that is none is left out."""

    def read(**changes: Any) -> SweepPlan:
        content = {"metric": METRIC, "trials": 6, "search": SEARCH, **changes}
        path = tmp_path / "warm.yml"
        path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
        return plan_sweep(path.stem, read_sweep(path), experiment)

    return read


def only(name: str, values: Any) -> dict[str, Any]:
    return {"search": {name: values}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trails": 3}, "^trails must be a known parameter, got 'trails'; did you mean 'trials'"),
        # No parameter of the project is meant.
        ({"seeds": [0]}, "^seeds must be a known .*; (known are metric, search|did you mean 'final_seeds')"),
        ({"metric": None}, "must have metric, got none"),
        ({"metric": "stage1.embedding.precision_at_2"}, "did you mean 'stage1.embedding.precision_at_1'"),
        ({"metric": "classifier.accuracy"}, "measures on validation images, got 'classifier.accuracy'"),
        ({"trials": None}, "^trials must be given with sampler tpe, got none; write trials: 20$"),
        ({"trials": 0}, "^trials must be greater than or equal to 1, got 0"),
        ({"sampler": "tpee"}, "^sampler must be 'tpe', 'random' or 'grid', got 'tpee'; did you mean 'tpe'"),
        ({"sampler": "grid", "trials": 4}, "trials must be left out with sampler grid"),
        (
            {"sampler": "grid", "trials": None},
            "must be a list of choices or have a step",
        ),
        ({"search": {}}, "^search must .* at least 1 item"),
        (only("stage1.los.temperature", [1]), "stage1.los must be .*did you mean 'stage1.loss'"),
        (only("stage1.loss.temprature", [1]), "did you mean 'stage1.loss.temperature'"),
        (only("stage9.lr", [1]), "stage9 must be a known parameter, got 'stage9'"),
        (only(TEMPERATURE, [0.1, 0]), f"^{TEMPERATURE} must be greater than 0, got 0$"),
        (only(TEMPERATURE, {"low": 0, "high": 1}), f"^{TEMPERATURE} must be greater than 0, got 0"),
        (only(TEMPERATURE, {"low": 1, "high": 0.1}), f"{TEMPERATURE}.high must be above low"),
        (only(TEMPERATURE, {"low": 0, "high": 1, "log": True}), "low must be above 0 with log"),
        (only(TEMPERATURE, {"low": 0.1, "high": 1, "log": True, "step": 0.1}), "step must be left out"),
        (only(TEMPERATURE, {"low": 0.1, "high": 1, "step": 0.4}), "step must lead from low .* got 0.4"),
        (only(TEMPERATURE, {"low": 0.1, "hihg": 1}), f"search.{TEMPERATURE} must have high"),
        (only(TEMPERATURE, {"low": 0.1, "high": 1, "stpe": 1}), f"did you mean '{TEMPERATURE}.step'"),
        (only(TEMPERATURE, {"low": True, "high": 2}), "low must be a valid number, got True"),
        (only(TEMPERATURE, 0.1), "must be a range such as .* or a list of choices, got 0.1"),
        (only(TEMPERATURE, []), "or a list of choices, got \\[\\]"),
        (only(TEMPERATURE, [0.1, 0.1]), "must have each choice once, got 0.1 twice"),
        (only("stage1.optimizer.betas", [[0.9, 0.99]]), "must have single values without commas"),
        (
            only("stage1.compile", {"low": 0, "high": 1}),
            "compile must be a list of choices, got a range",
        ),
        (only("stage1.schedule.num_epochs", {"low": 2, "high": 4.5}), "must have whole numbers, got 4.5"),
        (only("stage1.loss.name", ["supcon", "triplet"]), "stage1.loss.name must be 'supcon'.*got 'triplet'"),
        (
            {"search": {"stage1.optimizer.name": ["sgd", "adam"], "stage1.optimizer.momentum": [0.9, None]}},
            "stage1.optimizer.momentum must be null with adam, got 0.9",
        ),
        (only("stage1.seed", [1, 2]), "search must leave seeds, images and their split as they are"),
        (only("data_prep.test_fraction", [0.1, 0.2]), "search must leave seeds, images and their split"),
        (only("evaluation.knn.k", [1, 5]), "that the trials take \\(data_prep, images, stage1\\)"),
        (
            only("stage1.backbone.weights", [None, "gone.pt"]),
            "must be an existing file, got 'gone.pt'",
        ),
        ({"fixed": {LR: 0.1}}, f"search must not have what is fixed, got '{LR}' in both"),
        ({"fixed": {"stage1.ema": [1]}}, "fixed.stage1.ema must have single values"),
        ({"fixed": {"stage1.sed": 3}}, "stage1.sed must be a known parameter.*did you mean 'stage1.seed'"),
        (
            {"fixed": {"stage1.seed": 3}},
            r"stage1.seed must be \$\{seed\} .*write seed: 3 under fixed",
        ),
        ({"pipelines": ["data_prep", "stage1", "evaluation"]}, "look at no test image, got 'evaluation'"),
        ({"pipelines": ["data_prep", "stage1", "published"]}, "look at no test image, got 'published'"),
        (
            {"pipelines": ["stage_1"]},
            "must be of this project, got 'stage_1'; did you mean 'stage1'",
        ),
        ({"pipelines": ["data_prep"]}, "must have the last of data_prep, stage1"),
        (
            {"metric": "stage2.accuracy", "pipelines": ["stage1", "stage2"]},
            "must have the last of data_prep, stage1, stage1_swa, stage2, .* got stage1, stage2",
        ),
    ],
)
def test_what_a_sweep_must_not_say_is_one_line(plan: Plan, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message) as refused:
        plan(**changes)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [("- 1", "must be a mapping"), ("a: [", "must be a YAML file"), ("text", "must have metric")],
)
def test_a_file_that_declares_nothing_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "warm.yml"
    path.write_text(text)
    with pytest.raises(CommandError, match=message):
        read_sweep(path)
    with pytest.raises(CommandError, match="name of the file must start with a letter"):
        read_sweep(path.rename(tmp_path / "two words.yml"))
    with pytest.raises(CommandError, match=r"file must declare a sweep, got .*gone\.yml, which is no file"):
        read_sweep(tmp_path / "gone.yml")


def test_images_are_prepared_once_and_read_by_all_trials(plan: Plan) -> None:
    sweep = plan(repeats=2, fixed={"stage1": {"schedule": {"num_epochs": 5}}, "stage2.label_smoothing": 0.1})
    sweep = sweep.reading(find_versions(sweep))
    assert sweep.data_run.pipelines == ["data_prep"]
    trial = sweep.trial_run(3, sweep.seeds[1], {TEMPERATURE: 0.5, LR: 1e-5})
    assert trial.command == (
        "SUPCON_RUN_ID=warm-t003-s1 kedro run --env tiny --pipelines stage1 --params "
        "stage1.schedule.num_epochs=5,stage1.loss.temperature=0.5,stage1.optimizer.lr=1e-05,seed=1 "
        "--load-versions dataset_card:warm-data,prepared_images:warm-data,samples:warm-data"
    )
    final = sweep.final_run(3, sweep.final_seeds[0], {TEMPERATURE: 0.5, LR: 1e-5})
    assert sweep.final_seeds == [2, 3, 4]
    assert "evaluation" in final.pipelines
    assert "data_prep" not in final.pipelines
    assert final.params["stage2.label_smoothing"] == 0.1
    assert final.load_versions["samples"] == "warm-data"


def test_a_search_over_the_images_keeps_their_split(plan: Plan) -> None:
    sweep = plan(search={"data_prep.image_size": [8, 16]})
    trial = sweep.trial_run(0, 7, {"data_prep.image_size": 16})
    assert trial.pipelines == ["data_prep", "stage1"]
    assert trial.params == {"data_prep.image_size": 16, "seed": 7, "data_prep.seed": 0}
    assert not sweep.has_own_data


def test_a_metric_of_the_classifier_needs_the_encoder(plan: Plan) -> None:
    sweep = plan(metric="stage2.accuracy", search={"stage2.optimizer.lr": [0.1, 1.0]})
    assert sweep.trial_pipelines == ["stage1", "stage1_swa", "stage2"]
    own = plan(metric="stage2.accuracy", search={"stage2.optimizer.lr": [0.1, 1.0]}, pipelines=["stage2"])
    assert own.trial_pipelines == ["stage2"]
    assert "stage1" not in own.final_pipelines
    with pytest.raises(CommandError, match="must be in a run of this experiment, got none; first type:"):
        find_versions(own)


def test_what_would_run_is_said_as_it_is_typed(plan: Plan) -> None:
    said = "\n".join(str(part) for part in describe_plan(plan(), num_ended=2))
    assert "6 trials of 1 seed, 2 of them done" in said
    assert f"{TEMPERATURE}: 0.02 to 1, log" in said
    assert "SUPCON_RUN_ID=warm-data kedro run --env tiny --pipelines data_prep" in said
    assert "SUPCON_RUN_ID=warm-t000-s0 kedro run --env tiny --pipelines stage1" in said


def test_a_grid_has_every_combination_of_steps_and_choices() -> None:
    search = {"a": Range(low=1, high=3), "b": Range(low=0.1, high=0.3, step=0.1), "c": ["x", None]}
    grid = Space(search, whole={"a"}).grid()
    assert len(grid) == 18
    assert grid[0] == {"a": 1, "b": 0.1, "c": "x"}
    assert grid[-1] == {"a": 3, "b": 0.3, "c": None}


def test_of_very_many_combinations_each_value_is_tried() -> None:
    search = {name: [*range(30)] for name in "abc"}
    tried = list(Space(search, whole=set()).corners())
    assert len(tried) == 1000
    assert all({values[name] for values in tried} == {*range(30)} for name in "abc")


class FakeTrainer:
    """Values by a formula, with its maximum at temperature 0.1 and lr 0.1, and curves that rise to them."""

    def __init__(self, fails: Callable[[PlannedRun], None] = lambda _: None):
        self.fails, self.trained = fails, list[str]()

    def validate(self, run: PlannedRun, report: Callable[[int, float], None] | None = None) -> float:
        self.fails(run)
        self.trained.append(run.run_id)
        value = self.value_of(run.params)
        for epoch in range(1, 5):
            if report is not None:
                report(epoch, value * epoch / 4)
        return value

    @staticmethod
    def value_of(params: dict[str, Any]) -> float:
        return 1 - abs(params[TEMPERATURE] - 0.1) - abs(params[LR] - 0.1) - params["seed"] / 100


def run_search(plan: SweepPlan, path: Path, trainer: FakeTrainer) -> tuple[list[Any], list[str]]:
    """Search as far as it goes; gives the trials, and what was said."""
    said: list[str] = []
    with open_study(path / "study.db", plan) as study:
        search(study, settle(study, plan, lambda _: {}), trainer, said.append)
        best = best_trial(study)
        assert best is not None
        return [best, *study.get_trials()], said


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies that last as long as the test: a database takes a second to be made."""
    optuna = pytest.importorskip("optuna")
    known: dict[Path, Any] = {}

    def storage(path: Path) -> Any:
        return nullcontext(known.setdefault(path, optuna.storages.InMemoryStorage()))

    monkeypatch.setattr(sweep_search, "open_storage", storage)


@pytest.mark.usefixtures("in_memory")
def test_a_grid_finds_the_optimum_of_all_combinations(plan: Plan, tmp_path: Path) -> None:
    search = {TEMPERATURE: {"low": 0.1, "high": 0.4, "step": 0.1}, LR: [0.01, 0.1, 1.0]}
    trainer = FakeTrainer()
    grid = plan(sampler="grid", trials=None, search=search, prune=False)
    (best, *trials), said = run_search(grid, tmp_path, trainer)
    by_hand = {
        (temperature, lr): FakeTrainer.value_of({TEMPERATURE: temperature, LR: lr, "seed": 0})
        for temperature in (0.1, 0.2, 0.3, 0.4)
        for lr in (0.01, 0.1, 1.0)
    }
    assert {(trial.params[TEMPERATURE], trial.params[LR]): trial.value for trial in trials} == by_hand
    assert (best.params[TEMPERATURE], best.params[LR]) == max(by_hand, key=by_hand.__getitem__)
    assert len(trainer.trained) == len(said) == 12
    assert "(12 of 12, best 1.0000 of warm-t001" in said[-1]


class Cut(BaseException):
    """Ends a search as a signal does."""


@pytest.mark.usefixtures("in_memory")
def test_a_search_that_is_cut_off_goes_on_as_if_it_had_not_been(plan: Plan, tmp_path: Path) -> None:
    undisturbed, _ = run_search(plan(trials=12), tmp_path / "whole", FakeTrainer())

    def cut_off(run: PlannedRun) -> None:
        if run.run_id in cuts and run.run_id not in begun:
            begun.append(run.run_id)
            raise Cut

    cuts, begun, done = [f"warm-t{number:03d}-s0" for number in (2, 11)], list[str](), list[str]()
    for _ in cuts:
        trainer = FakeTrainer(cut_off)
        with pytest.raises(Cut):
            run_search(plan(trials=12), tmp_path / "cut", trainer)
        done += trainer.trained
    last = FakeTrainer()
    resumed, said = run_search(plan(trials=12), tmp_path / "cut", last)
    assert done + last.trained == [f"warm-t{number:03d}-s0" for number in range(12)]
    assert [trial.params for trial in resumed] == [trial.params for trial in undisturbed]
    assert [trial.value for trial in resumed] == [trial.value for trial in undisturbed]
    assert len(said) == 1
    again = FakeTrainer()
    run_search(plan(trials=12), tmp_path / "cut", again)
    assert again.trained == []


def test_a_search_that_was_killed_is_found_on_the_disk(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("optuna")

    def cut_off(run: PlannedRun) -> None:
        begun.append(run)
        if run.run_id == "warm-t001-s0":
            raise Cut

    begun: list[PlannedRun] = []
    with pytest.raises(Cut):
        run_search(plan(trials=2), tmp_path, FakeTrainer(cut_off))
    last = FakeTrainer(lambda run: begun.append(run))
    run_search(plan(trials=2), tmp_path, last)
    assert last.trained == ["warm-t001-s0"]
    # The same values to the last digit, without which the run would not go on.
    assert begun[1] == begun[2]


def test_a_study_that_is_damaged_is_refused_in_one_line(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    run_search(plan(trials=1), tmp_path, FakeTrainer())
    (study,) = tmp_path.rglob("*.db")
    content = study.read_bytes()
    for damaged in (content[: len(content) // 2], b"not a database" * 99):
        study.write_bytes(damaged)
        with pytest.raises(CommandError, match=rf"^{study} must be as the sweep .* damaged \(.*; restore it"):
            run_search(plan(trials=1), tmp_path, FakeTrainer())


def test_without_optuna_a_sweep_names_the_extra(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supcon_pipeline.core.messages.find_spec", lambda _: None)
    with (
        pytest.raises(InputError, match=r"type pip install 'supcon_pipeline\[sweep\]'$"),
        open_study(tmp_path / "study.db", plan()),
    ):
        pass


@pytest.mark.usefixtures("in_memory")
def test_a_trial_below_the_median_of_the_others_is_stopped(plan: Plan, tmp_path: Path) -> None:
    search = {TEMPERATURE: [0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.15], LR: [0.1]}
    trainer = FakeTrainer()
    grid = plan(sampler="grid", trials=None, search=search, repeats=2)
    (best, *trials), said = run_search(grid, tmp_path, trainer)
    assert [trial.state.name for trial in trials] == [*["COMPLETE"] * 5, "PRUNED", "COMPLETE"]
    # The first seed says that it is hopeless, and no other is trained.
    assert "warm-t005-s0" in trainer.trained
    assert "warm-t005-s1" not in trainer.trained
    assert "stopped after epoch 1, with 0.0500" in said[5]
    # The mean over both seeds.
    assert best.value == pytest.approx(0.995)


@pytest.mark.usefixtures("in_memory")
def test_what_fails_is_tried_again_when_the_search_goes_on(plan: Plan, tmp_path: Path) -> None:
    def fail(run: PlannedRun) -> None:
        if run.run_id == "warm-t001-s0":
            raise FailedRunError("no room on the disk")

    (_, *trials), said = run_search(plan(), tmp_path, FakeTrainer(fail))
    assert [trial.state.name for trial in trials] == ["COMPLETE", "RUNNING", *["COMPLETE"] * 4]
    assert said[1].endswith("failed: no room on the disk")
    again = FakeTrainer()
    (_, *trials), _ = run_search(plan(), tmp_path, again)
    assert again.trained == ["warm-t001-s0"]
    assert len(trials) == 6


@pytest.mark.usefixtures("in_memory")
def test_three_failures_in_a_row_end_a_search(plan: Plan, tmp_path: Path) -> None:
    def fail(run: PlannedRun) -> None:
        raise FailedRunError(f"no {run.run_id}")

    with pytest.raises(CommandError, match="got 3 in a row that failed, the last with: no warm-t002-s0"):
        run_search(plan(), tmp_path, FakeTrainer(fail))


@pytest.mark.usefixtures("in_memory")
def test_a_training_that_diverges_counts_as_hopeless(plan: Plan, tmp_path: Path) -> None:
    def diverge(run: PlannedRun) -> None:
        if run.run_id != "warm-t001-s0":
            raise HopelessError("diverged")

    (best, *trials), said = run_search(plan(), tmp_path, FakeTrainer(diverge))
    assert best.number == 1
    assert sum(trial.state.name == "PRUNED" for trial in trials) == 5
    assert said[0].partition(": ")[2].startswith("diverged  (1 of 6")


@pytest.mark.usefixtures("in_memory")
def test_another_search_of_the_same_name_is_refused(plan: Plan, tmp_path: Path) -> None:
    run_search(plan(trials=2), tmp_path, FakeTrainer())
    for changes, said in (
        ({"fixed": {"stage1.num_views": 3}}, "stage1.num_views was 2, is 3"),
        ({"search": {**SEARCH, LR: [0.01, 0.2]}}, f"search.{LR}.1 was 0.1, is 0.2"),
        ({"repeats": 2}, "repeats was 1, is 2"),
    ):
        with pytest.raises(CommandError, match=said):
            run_search(plan(**changes), tmp_path, FakeTrainer())
    more = FakeTrainer()
    run_search(plan(trials=3, final_seeds=1, fixed={"stage1.loader.num_workers": 1}), tmp_path, more)
    assert more.trained == ["warm-t002-s0"]


@pytest.mark.usefixtures("in_memory")
def test_the_lowest_log_loss_is_best(plan: Plan, tmp_path: Path) -> None:
    search = {TEMPERATURE: [0.1, 0.5], LR: [0.1]}
    sweep = plan(metric="stage2.log_loss", sampler="grid", trials=None, search=search)
    (best, *_), _ = run_search(sweep, tmp_path, FakeTrainer())
    assert best.params[TEMPERATURE] == 0.5


@pytest.fixture
def trial(plan: Plan) -> tuple[SweepRuns, PlannedRun]:
    """What runs a trial, and the trial."""
    sweep = plan()
    runs = SweepRuns(sweep, sweep.experiment.project_path / "logs")
    return runs, sweep.trial_run(0, 0, {TEMPERATURE: 0.5, LR: 0.1})


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let Python code stand for `kedro run`, in a process of its own."""
    monkeypatch.setattr(sweep_runs, "command_of", lambda _: [sys.executable, "-c", code])


def test_a_hopeless_training_is_stopped_and_its_progress_removed(
    trial: tuple[SweepRuns, PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, run = trial
    project = runs.plan.experiment.project_path
    store = project / "data/06_models/tiny/stage1_progress"
    for name, temperature in (("other", 0.1), ("own", 0.5)):
        (store / name).mkdir(parents=True)
        parameters = {"loss": {"temperature": temperature}, "optimizer": {"lr": 0.1}, "seed": 0}
        path = store / name / "identity.json"
        path.write_text(json.dumps({"parameters": parameters}))
        os.utime(path, (time.time() + 100,) * 2)
    (store / "damaged").mkdir()
    (store / "damaged/identity.json").write_text('{"param')
    record = runs.plan.experiment.book.record_dataset(run.run_id)
    record.create({"run_id": run.run_id, "started": "2026-01-01T00:00:00+00:00"})
    session = {"task": "1", "outcome": "interrupted", "started": "", "ended": "", "parameters": {}}
    node = {"outcome": "interrupted", "outputs": []}
    record.save_task({**session, "nodes": {"stage1.pretrain_encoder": node}})  # type: ignore[typeddict-item]
    pretend(
        monkeypatch,
        f"""
import sys, time
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter("data/08_reporting/tiny/tensorboard/stage1/{run.run_id}", flush_secs=0.1)
tag = "epoch/{METRIC.removeprefix("stage1.")}"
for step in (1, 2):
    value = Summary.Value(tag=tag, simple_value=step / 4)
    writer.add_event(Event(step=step, summary=Summary(value=[value])))
time.sleep(60)
""",
    )
    reported: list[tuple[int, float]] = []

    def report(epoch: int, value: float) -> None:
        reported.append((epoch, value))
        if epoch == 2:
            raise HopelessError("stopped")

    with pytest.raises(HopelessError, match="stopped"):
        runs.validate(run, report)
    assert reported[-2:] == [(1, 0.25), (2, 0.5)]
    assert (store / "other").exists()
    assert not (store / "own").exists()
    assert record.load()["outcome"] == "pruned"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (
            "print('Error: disk is full'); print('late'); exit(1)",
            FailedRunError,
            r"^disk is full \(see",
        ),
        ("1 / 0", FailedRunError, "^ZeroDivisionError: division by zero"),
        ("exit(3)", FailedRunError, "^the run said nothing"),
        ("print('Error: loss must be finite, got nan at step 3'); exit(1)", HopelessError, "^diverged$"),
    ],
)
def test_a_run_that_fails_says_why(
    trial: tuple[SweepRuns, PlannedRun],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    error: type[Exception],
    message: str,
) -> None:
    runs, run = trial
    runs.folder.mkdir(exist_ok=True)
    (runs.folder / f"{run.run_id}.log").write_text("Error: loss must be finite, got nan, the last time\n")
    pretend(monkeypatch, code)
    with pytest.raises(error, match=message):
        runs.validate(run)


def test_an_interrupt_ends_the_running_trial_and_keeps_its_progress(
    trial: tuple[SweepRuns, PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, run = trial
    project = runs.plan.experiment.project_path
    started, identity = (
        project / "started",
        project / "data/06_models/tiny/stage1_progress/kept/identity.json",
    )
    identity.parent.mkdir(parents=True)
    identity.write_text(json.dumps({"parameters": {}}))

    class Interrupted:
        def read(self) -> list[tuple[int, float]]:
            if started.exists():
                os.utime(identity)
                raise KeyboardInterrupt
            return []

    monkeypatch.setattr(runs, "_curve", lambda _: Interrupted())
    code = "import os, time; from pathlib import Path; Path('half').write_text(str(os.getpid())); "
    pretend(monkeypatch, f"{code} os.rename('half', 'started'); time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        runs.validate(run, lambda *_: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert identity.exists()


@pytest.mark.parametrize("name", ["loss", "gradient norm", "gradient"])
def test_a_divergence_is_told_from_other_failures(name: str) -> None:
    with pytest.raises(DivergenceError) as diverged:
        require_finite(name, float("nan"), 1, 0.1)
    assert sweep_runs.has_diverged(str(diverged.value))
    assert not sweep_runs.has_diverged("memory must be enough")


def test_a_sweep_in_a_folder_without_a_project_runs_and_names_what_works_there(tmp_path: Path) -> None:
    path, folder = tmp_path / "warm.yml", tmp_path / "folder"
    path.write_text(yaml.safe_dump({"metric": METRIC, "trials": 6, "search": SEARCH}))
    folder.mkdir()
    experiment = Experiment(prepare_folder(folder).project_path, None)
    plan = plan_sweep("warm", read_sweep(path), experiment)
    values = {TEMPERATURE: 0.5, LR: 0.1}
    trial, final = plan.trial_run(0, 0, values), plan.final_run(0, 1, values)
    said = [str(part) for part in [*describe_plan(plan, 0), *describe_final(plan, [final], [1], [METRICS])]]
    said += [trial.command, command_with(plan, values)]
    assert sum("supcon_pipeline run" in line for line in said) == 6
    assert not any("kedro" in line for line in said)
    with pytest.raises(FailedRunError, match=r"^env must be one of base, cifar10, "):
        SweepRuns(plan, tmp_path / "logs").validate(replace(trial, env="nowhere"))


def test_a_run_is_stopped_when_its_sweep_is_gone() -> None:
    module = "supcon_pipeline.run_commands.sweep.process"
    code = f"import time; from {module} import watch; watch(); time.sleep(60)"
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=variables)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == -signal.SIGTERM


def test_a_curve_has_each_epoch_once_though_a_training_went_on(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    curve, no_numbers = Curve(tmp_path / "log", "m"), Curve(tmp_path / "log", "nan")
    assert curve.read() == []
    for epochs in ((1, 2), (1, 2, 3)):
        with SummaryWriter(str(tmp_path / "log"), filename_suffix=str(epochs[-1])) as log:
            for epoch in epochs:
                log.add_scalar("epoch/m", epoch / 4, epoch)
                log.add_scalar("epoch/nan", float("nan"), epoch)
        assert curve.read() == [(epoch, epoch / 4) for epoch in epochs]
    assert no_numbers.read() == []


def test_the_last_table_has_mean_and_spread_over_the_fresh_seeds(plan: Plan) -> None:
    from rich.console import Console

    sweep = plan(final_seeds=2)
    runs = [sweep.final_run(4, seed, {TEMPERATURE: 0.5, LR: 0.1}) for seed in sweep.final_seeds]
    metrics = [
        {
            "num_images": 100,
            "embedding": {"precision_at_1": value},
            "baseline": {"embedding": {"precision_at_1": 0.5}},
        }
        for value in (0.8, 0.9)
    ]
    console = Console(width=200, record=True)
    for part in describe_final(sweep, runs, [0.7, 0.9], metrics):
        console.print(part)
    said = console.export_text()
    assert f"2 fresh seeds (1, 2), {METRIC} on validation images: 0.8000 ± 0.1414" in said
    assert ["embedding", "precision@1", "0.8500", "±", "0.0707", "0.5000", "±", "0.0000"] in map(
        str.split, said.splitlines()
    )
    assert "kedro runs compare warm-t004-test-s1 warm-t004-test-s2" in said
