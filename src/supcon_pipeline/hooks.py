"""Hooks for what concerns every pipeline: parameters, runs and the closing table."""

import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from supcon_pipeline.commands import CommandError, commands_folder, run_command
from supcon_pipeline.datasets.progress import ProgressDataset
from supcon_pipeline.pipeline_registry import whole_graph
from supcon_pipeline.runs import RunBook, open_run
from supcon_pipeline.validation import parameter_models, try_views, validate_parameters

# The catalog entry that reads the `path` of each group of parameters.
_SOURCES = {
    "images": "raw_images",
    "inference": "inference_images",
    "out_of_distribution": "outside_images",
}


class ParameterHooks:
    """Validate all parameters as soon as the configuration is read."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Refuse unknown names and invalid values.

        Raises:
            CommandError: with one line per mistake.
        """
        from supcon_pipeline.core.parameters.data import ImagesParameters

        models = parameter_models()
        parameters = context.config_loader["parameters"]
        if "images" in parameters:
            models["images"] = ImagesParameters
        validate_parameters(parameters, models)
        catalog = context.config_loader["catalog"]
        for name, source in _SOURCES.items():
            if parameters.get(name, {}).get("path") and "path" not in catalog[source]:
                experiment = context.config_loader.experiment  # type: ignore[attr-defined]
                raise CommandError(
                    f"{name}.path must be given with an experiment whose {source} reads a path, got "
                    f"experiment {experiment}; {'add --env images' if name == 'images' else 'leave it out'}"
                )


class RunHooks:
    """Open a run before its first node, and print its results after the last."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Remember the experiment and the project."""
        self.experiment = context.config_loader.experiment  # type: ignore[attr-defined]
        self.project_path = context.project_path

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog, save_version: str | None) -> None:
        """Outside a run (notebook, Kedro-Viz), let the catalog show one whole run."""
        if save_version is None:
            RunBook(catalog, whole_graph()).show()

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Open the run and pin its inputs to one earlier run, which `--load-versions` may choose.

        Raises:
            CommandError: where `open_run` refuses the run, or the transforms of a stage that will run do not
                work on its images.
        """
        command = partial(
            run_command,
            env=run_params["env"],
            params=run_params["runtime_params"],
            folder=commands_folder(self.project_path),
        )
        book = RunBook(catalog, whole_graph(), command)
        parameters = _plain(catalog.load("parameters"))
        stages = {
            name: parameters[name]["transforms"]
            for name in ("stage1", "stage2")
            if f"params:{name}" in pipeline.inputs()
        }
        if "prepared_images" in pipeline.all_outputs():
            size, num_channels = (parameters["data_prep"][name] for name in ("image_size", "num_channels"))
            try_views(stages, (size, size, num_channels))

        def describe() -> dict[str, Any]:
            return {
                "experiment": self.experiment,
                "started": datetime.now(UTC).isoformat(),
                "commit": describe_commit(self.project_path),
                "parameters": parameters,
            }

        open_run(
            book,
            run_params["run_id"],
            pipeline,
            describe,
            load_versions=run_params["load_versions"] or {},
            is_resumed=run_params["only_missing_outputs"],
        )
        if stages and "dataset_card" in pipeline.inputs():
            # The shape of the images is known only once the run that holds them is pinned.
            try_views(stages, tuple(catalog.load("dataset_card")["image_shape"]))

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Delete the progress of finished trainings; print where the results are and what to type next."""
        from supcon_pipeline.results import print_results

        for name in pipeline.inputs():
            dataset = catalog.get(name)
            if isinstance(dataset, ProgressDataset):
                dataset.clear()

        print_results(run_params, pipeline, catalog, self.project_path)


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as plain JSON values, with all that was left out, whichever pipelines run."""
    models = parameter_models()
    return {
        name: models[name].model_validate(value).model_dump(mode="json") if name in models else value
        for name, value in parameters.items()
    }


def describe_commit(project_path: Path) -> str | None:
    """The commit of the code, plus `+changes` where files are modified; none outside version control."""
    command = ["git", "-C", str(project_path), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
