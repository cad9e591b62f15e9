"""The closing summary of a run: metrics, where the results are, and what to type next."""

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import AbstractVersionedDataset, DataCatalog
from kedro.pipeline import Pipeline
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from supcon_pipeline.commands import complete_commands, program_of, run_command
from supcon_pipeline.core.pages.headlines import (
    describe_gains,
    describe_images,
    describe_without_near_duplicates,
    headlines_of,
)
from supcon_pipeline.datasets.stores import place_of
from supcon_pipeline.pipelines.export.nodes import OF_ENCODER
from supcon_pipeline.runs import RECORD, RunBook

# The folder of what people look at.
_REPORTS = "08_reporting"
# Above this many artifacts, only those for people to look at are listed.
MAX_SHOWN = 10
# Artifacts that the report shows where the run has them.
REPORTED = frozenset(
    {"stage1_lr_figure", "stage2_lr_figure", "out_of_distribution_metrics", "learning_curve_figure"}
)


def print_results(
    run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog, project_path: Path
) -> None:
    """Print the metrics and files that a run made, and commands to type next."""
    console = Console(highlight=False)
    made, program = pipeline.all_outputs(), program_of(project_path)
    if "metrics" in made:
        given = (run_params.get("runtime_params") or {}).get("evaluation") or {}
        complete = partial(complete_commands, env=None, program=program, params={"evaluation": given})
        _print_metrics(console, catalog.load("metrics"), complete)
    if "inference_predictions" in made:
        _print_predictions(console, catalog)
    if "out_of_distribution_metrics" in made:
        _print_detection(console, catalog.load("out_of_distribution_metrics"))
    for stage in ("stage1", "stage2"):
        if f"{stage}_lr_suggestion" in made:
            lr = catalog.load(f"{stage}_lr_suggestion")["suggested_lr"]
            console.print(f"\n{stage}: try --params {stage}.optimizer.lr={lr:.2g}", markup=False)
    places = _artifact_places(made, catalog, project_path)
    shown = {name: place for name, place in places.items() if _REPORTS in place.split("/")} or places
    shown, others = (places, "") if len(places) <= MAX_SHOWN else (shown, ", among them")
    console.print(f"\nRun [bold]{run_params['run_id']}[/bold] has made {len(places)} artifacts{others}:")
    for name, place in shown.items():
        console.print(f"  {name:<20} {place}", soft_wrap=True, markup=False)
    console.print("\nNext:")
    reports = _reports_of(catalog, project_path)
    for command, purpose in _next_commands(made, run_params, catalog, program, reports):
        console.print(f"  {command:<50} {purpose}", soft_wrap=True, markup=False)


def _artifact_places(names: set[str], catalog: DataCatalog, project_path: Path) -> dict[str, str]:
    """The file or address of each artifact that has one, relative to the project where it is inside."""
    datasets = {name: catalog.get(name) for name in sorted(names)}
    return {
        name: place_of(dataset, project_path)
        for name, dataset in datasets.items()
        if isinstance(dataset, AbstractVersionedDataset)
    }


def _reports_of(catalog: DataCatalog, project_path: Path) -> str:
    """The folder of the reports of all experiments, where TensorBoard finds their curves."""
    record = catalog.get(RECORD)
    place = place_of(record, project_path) if record is not None else ""
    before, found, _ = place.partition(f"/{_REPORTS}/")
    return f"{before}/{_REPORTS}" if found else f"data/{_REPORTS}"


def _with_another_seed(run_params: dict[str, Any], catalog: DataCatalog, program: str) -> str:
    """The command for a run by the same parameters, and another seed."""
    given = run_params.get("runtime_params") or {}
    known = catalog.load("parameters") if "parameters" in catalog else given
    params = {**given, "seed": 0 if known.get("seed") == 1 else 1}
    return run_command([], run_params.get("env"), params, program=program)


def _next_commands(
    made: set[str], run_params: dict[str, Any], catalog: DataCatalog, program: str, reports: str
) -> list[tuple[str, str]]:
    """Commands to type next, each with its purpose; none that would be refused."""
    env = f" --env {shlex.quote(run_params['env'])}" if run_params.get("env") else ""
    run, lacking = f"{program} run{env}", _lacking(catalog, run_params["run_id"])
    infer = _inference(run, lacking("inference"))
    if made & {"inference_predictions", "model_card"}:
        return [*infer, (f"{run} {_export(made, catalog)}", "export for other programs")]
    if "gallery_index" in made:
        return [(command, "search new images among these, too") for command, _ in infer]
    if made & REPORTED and "report" not in made:
        node = "visualization.write_report"
        is_possible = not lacking("visualization", node)
        return [*([(f"{run} --nodes {node}", "add it to the report")] if is_possible else []), *infer]
    can_evaluate = made & {"classifier", "metrics", "report"} and not lacking("evaluation")
    folder = program[: program.rfind("/") + 1]
    lineage = [(f"{program} viz run --include-hooks{env}", "see the lineage in a browser")]
    change = _with_another_seed(run_params, catalog, program)
    return [
        # Kedro-Viz is an extra, and for projects.
        *(lineage if find_spec("kedro_viz") and program.endswith("kedro") else []),
        *([(f"{run} --pipelines evaluation", "evaluate again without training")] if can_evaluate else []),
        (change, "change a parameter, here the seed"),
        *(infer if made & {"metrics", "report"} else []),
        (f"{folder}tensorboard --logdir {shlex.quote(reports)}", "see the curves of all runs"),
    ]


def _lacking(catalog: DataCatalog, run_id: str) -> Callable[..., list[str]]:
    """A function that gives the pipelines that must run before another, or a node of it, can read a run."""
    from supcon_pipeline.pipeline_registry import register_pipelines, whole_graph

    pipelines, book = register_pipelines(), RunBook(catalog, whole_graph())
    run = book.read(run_id) if book.names else None
    present = run.artifacts.keys() if run else set(book.names)

    def lacking(name: str, *nodes: str) -> list[str]:
        chosen = pipelines[name].only_nodes(*nodes) if nodes else pipelines[name]
        needed = chosen.inputs() & set(book.names) - book.optional
        return book.pipelines_making(needed - present, present)

    return lacking


def _inference(run: str, before: list[str]) -> list[tuple[str, str]]:
    """The command that classifies new images, where no more than the index must be made before."""
    if before not in ([], ["index"]):
        return []
    pipelines = ",".join([*before, "inference"])
    return [(f"{run} --pipelines {pipelines} --params inference.path=<folder>", "classify new images")]


def _export(made: set[str], catalog: DataCatalog) -> str:
    """What exports the models of a run; of classes that train lacks, there is no classifier."""
    if "inference_predictions" in made and "classifier_class" not in catalog.load("inference_predictions"):
        return f"--pipelines export --nodes {','.join(OF_ENCODER)}"
    return "--pipelines export"


def _print_predictions(console: Console, catalog: DataCatalog) -> None:
    predictions, unreadable = catalog.load("inference_predictions"), catalog.load("unreadable_images")
    # Of classes that train lacks, there is no classifier.
    is_known = "classifier_class" in predictions
    searched = "training images" if is_known else "images of the run"
    classes = _count_classes(predictions["classifier_class" if is_known else "knn_class"])
    unknown = int(predictions["is_unknown"].sum())
    console.print(f"\n{len(predictions):,} images: {classes}", soft_wrap=True, markup=False)
    if is_known:
        _print_enrolled(console, predictions["knn_class"], catalog.load("dataset_card")["class_names"])
    console.print(f"{unknown:,} are unknown: unlike the {searched}")
    if len(unreadable):
        console.print(f"[bold]{len(unreadable):,} could not be read[/bold]: see unreadable_images")


def _print_enrolled(console: Console, found: pd.Series, class_names: Sequence[str]) -> None:
    """The classes by k-NN that the classifier does not know, and took for others."""
    enrolled = found[~found.isin(class_names)]
    if len(enrolled):
        words = f"{len(enrolled):,} by their neighbours of classes that the classifier lacks"
        console.print(f"{words}: {_count_classes(enrolled)}", soft_wrap=True, markup=False)


def _count_classes(classes: pd.Series) -> str:
    """The ten most frequent, each with its number of images."""
    counts = classes.value_counts()
    others = f" and {len(counts) - 10} other classes" if len(counts) > 10 else ""
    return ", ".join(f"{name} {count:,}" for name, count in counts.head(10).items()) + others


def _print_detection(console: Console, detection: dict[str, Any]) -> None:
    counts = f"{detection['num_outside']:,} images of another kind, {detection['num_inside']:,} test images"
    scores = f"AUROC {detection['auroc']:.4f}, FPR at 95 % TPR {detection['fpr_at_95_tpr']:.4f}"
    console.print(f"\n{counts}: {scores}", soft_wrap=True)


def _print_metrics(console: Console, metrics: dict[str, Any], complete: Callable[[str], str]) -> None:
    title = f"Metrics on {describe_images(metrics)}"
    # Without frames, six columns fit in 80 characters.
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("metric", no_wrap=True)
    # What there was before; pixels are compared with the embedding.
    others: dict[str, Any] = {name: metrics[name] for name in ("published", "baseline") if name in metrics}
    others["pixels"] = {"embedding": metrics["pixels"]}
    for column in ("contrastive", "95 % interval", *others):
        table.add_column(column, justify="right")
    for group, metric, short, _ in headlines_of(metrics):
        ends = metrics[group].get("intervals", {}).get(metric)
        interval = f"{ends[0]:.3f}-{ends[1]:.3f}" if ends else ""
        values = (models.get(group, {}).get(metric) for models in (metrics, *others.values()))
        value, *beside = ("" if x is None else f"{x:.4f}" for x in values)
        table.add_row(f"{group} {short}", value, interval, *beside)
    console.print(table)
    if gains := describe_gains(metrics):
        console.print("Gain of the embedding on the same images, with 95 % intervals:")
        console.print("\n".join(f"  {gain}" for gain in gains), soft_wrap=True)
    if without := describe_without_near_duplicates(metrics):
        console.print(without, soft_wrap=True)
    for warning in metrics.get("warnings", ()):
        # The experiment is in its commands already.
        console.print(complete(warning), soft_wrap=True, markup=False, style="bold")
    if metrics["baseline_differs"]:
        differences = ", ".join(metrics["baseline_differs"])
        console.print(f"The baseline had a different budget: it was trained with another {differences}")
