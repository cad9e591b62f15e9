"""Settings of the Kedro project."""

from importlib.util import find_spec

from supcon_pipeline.accidents import AccidentHooks
from supcon_pipeline.commands import escape_what_the_console_lacks
from supcon_pipeline.config import ExperimentConfigLoader
from supcon_pipeline.datasets.atomic_files import use_atomic_files
from supcon_pipeline.hooks import ParameterHooks, RunHooks
from supcon_pipeline.session import RunSession

use_atomic_files()
escape_what_the_console_lacks()

HOOKS: tuple[object, ...] = (ParameterHooks(), RunHooks(), AccidentHooks())
# An extra, which is not loaded where it is not installed. Ours replaces its hook.
if find_spec("kedro_mlflow"):
    from supcon_pipeline.mlflow_hooks import MlflowRunHooks

    # The last is called first: a run is opened, and closed, before MLflow is told.
    HOOKS = (MlflowRunHooks(), *HOOKS)
# The package sends no data on its use, wherever it is installed.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow", "kedro-telemetry")
SESSION_CLASS = RunSession
CONFIG_LOADER_CLASS = ExperimentConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # `--params stage1.optimizer.lr=0.3` changes that key and leaves the others of `stage1`.
    "merge_strategy": {"parameters": "soft"},
}
