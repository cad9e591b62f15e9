"""Encoders from past runs and from files."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.project import settings
from kedro.utils import is_kedro_project

from supcon_pipeline.commands import RUN_ID_VARIABLE, CommandError, program_of, run_command
from supcon_pipeline.core.messages import InputError, suggest
from supcon_pipeline.projects import prepare_folder
from supcon_pipeline.runs import Run, RunBook

if TYPE_CHECKING:
    from supcon_pipeline.core.inference.image_encoder import ImageEncoder


def load_encoder(
    project_path: str | Path, env: str | None, run_id: str | None, trust: bool
) -> "ImageEncoder":
    """See `supcon_pipeline.load_encoder`."""
    path = Path(project_path).expanduser().resolve()
    if is_kedro_project(path) or (path / "data").is_dir() or (path / "conf").is_dir():
        return _load_from_run(path, env, run_id)
    if not path.is_file():
        raise InputError(
            "project_path must be the folder of a project, a folder with the data/ of runs or the file of a "
            f"model, got {str(project_path)!r}, which is none of them"
        )
    if env is not None or run_id is not None:
        raise InputError(f"env and run_id must be left out with a file, got {env!r} and {run_id!r}")
    return _load_from_file(path, trust)


def _load_from_file(path: Path, trust: bool) -> "ImageEncoder":
    from supcon_pipeline.core.inference import image_encoder
    from supcon_pipeline.datasets.artifacts import reading
    from supcon_pipeline.datasets.exported import OnnxDataset, ProgramDataset
    from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset

    readers: dict[str, tuple[Any, Any]] = {
        ".safetensors": (NamedTensorsDataset, image_encoder.encoder_of_states),
        ".onnx": (OnnxDataset, image_encoder.encoder_of_onnx),
        ".pt2": (ProgramDataset, image_encoder.encoder_of_program),
    }
    if path.suffix not in readers:
        raise InputError(f"file of a model must end in {', '.join(readers)}, got {path.name!r}")
    if path.suffix == ".pt2" and not trust:
        raise InputError(
            f"trust must be true for a .pt2, because PyTorch runs code that is in the file, got false for "
            f"{path.name!r}; load the .onnx of the same model, which holds no code, or, if you know who made "
            f"the file, type: load_encoder({str(path)!r}, trust=True)"
        )
    dataset, build = readers[path.suffix]
    with reading(path):
        return build(dataset(str(path)).read(path), name=path.name)  # type: ignore[no-any-return]


def _load_from_run(project_path: Path, env: str | None, run_id: str | None) -> "ImageEncoder":
    from supcon_pipeline.core.inference.image_encoder import encoder_of_states
    from supcon_pipeline.pipeline_registry import whole_graph

    prepare_folder(project_path)
    with settings.SESSION_CLASS.create(project_path, env=env) as session:
        catalog = session.load_context().catalog
    command = partial(run_command, env=env, program=program_of(project_path))
    book = RunBook(catalog, whole_graph(), command)
    run = _choose_run(book, run_id or os.environ.get(RUN_ID_VARIABLE))
    book.pin(run.artifacts)
    # A run may have stopped before stage 2 or evaluation; its encoder is still of use.
    optional = {"classifier", "classifier_metrics", "verification_metrics"} & run.artifacts.keys()
    # Not by `catalog.load`, which hides a refusal in an error of its own.
    found = {name: catalog.get(name).load() for name in ("encoder", "dataset_card", *optional)}
    metrics, verification = found.get("classifier_metrics"), found.get("verification_metrics")
    classifier = found.get("classifier")
    return encoder_of_states(
        found["encoder"],
        # There is none of classes that train lacks.
        classifier if classifier and classifier.tensors else None,
        found["dataset_card"]["class_names"],
        metrics["calibrated"]["temperature"] if metrics else 1.0,
        match_threshold=verification["threshold"] if verification else None,
    )


def _choose_run(book: RunBook, run_id: str | None) -> Run:
    needed = {"encoder", "dataset_card"}
    whole = (run for run in book.newest_first() if needed <= run.artifacts.keys())
    # Without any, `base_for` says what to run first.
    run = book.read(run_id) if run_id else next(whole, None) or book.base_for(needed)
    if run is None or not needed <= run.artifacts.keys():
        known = [other.run_id for other in book.newest_first() if needed <= other.artifacts.keys()]
        command = book.suggest_command(book.pipelines_making(needed, ()))
        remedy = suggest(str(run_id), known) if known else f"first type: {command}"
        raise CommandError(f"run_id must be a run with an encoder, got '{run_id}'; {remedy}")
    return run
