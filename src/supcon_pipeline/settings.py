"""Settings of the Kedro project."""

from supcon_pipeline.accidents import AccidentHooks
from supcon_pipeline.commands import escape_what_the_console_lacks
from supcon_pipeline.config import ExperimentConfigLoader
from supcon_pipeline.datasets.atomic_files import use_atomic_files
from supcon_pipeline.hooks import ParameterHooks, RunHooks
from supcon_pipeline.session import RunSession

use_atomic_files()
escape_what_the_console_lacks()

HOOKS = (ParameterHooks(), RunHooks(), AccidentHooks())
SESSION_CLASS = RunSession
CONFIG_LOADER_CLASS = ExperimentConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # `--params stage1.optimizer.lr=0.3` changes that key and leaves the others of `stage1`.
    "merge_strategy": {"parameters": "soft"},
}
