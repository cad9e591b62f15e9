"""Configuration: an experiment is an environment, and has folders of its own."""

from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf


class ExperimentConfigLoader(OmegaConfigLoader):
    """Kedro's loader with the resolver `${experiment:}`, which gives the name of the environment.

    The catalog puts it into every path, so that two environments never read each other's artifacts.
    """

    @property
    def experiment(self) -> str:
        """The environment; `base` where none was chosen."""
        return str(self.env) if self.env and self.env != self.default_run_env else str(self.base_env)

    def __getitem__(self, key: str) -> dict[str, Any]:
        # Registered at every reading: resolvers are global, and a process may hold several loaders.
        OmegaConf.register_new_resolver("experiment", lambda: self.experiment, replace=True)
        return super().__getitem__(key)
