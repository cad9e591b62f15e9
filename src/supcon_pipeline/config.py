"""Configuration: each experiment is an environment with folders of its own."""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from supcon_pipeline.commands import CommandError
from supcon_pipeline.core.messages import suggest

# Keys of a catalog entry that hold a path.
_PATHS = ("path", "filepath", "folder")


class ExperimentConfigLoader(OmegaConfigLoader):
    """Kedro's loader with two resolvers for the catalog, and `~` for the home folder in its paths.

    `${experiment:}` is the name of the environment. The catalog puts it into every path, so that two
    environments never read each other's artifacts. `${parameter:images.path}` is a parameter, wherever it was
    set; its value is taken literally, even with characters that are special to OmegaConf.

    The files are read once: a session asks for the parameters six times and for the catalog twice, and that
    was most of the time it took to start.
    """

    def __init__(self, *arguments: Any, **named: Any):
        self._read: dict[str, dict[str, Any]] = {}
        super().__init__(*arguments, **named)
        folder = Path(self.conf_source)
        # Kedro looks for files of configuration and versions of artifacts by patterns.
        if set("*?[") & set(str(folder.absolute())):
            raise CommandError(
                f"folder of the project must have no *, ? or [ in its path, got {folder.absolute().parent}; "
                "rename or move it"
            )
        # The source may also be an archive, and the default environment need not exist.
        if self.env and self.env != self.default_run_env and folder.is_dir():
            known = sorted(path.name for path in folder.iterdir() if path.is_dir())
            if self.env not in known:
                raise CommandError(
                    f"env must be a folder of {folder.name}, got '{self.env}'; {suggest(self.env, known)}"
                )

    @property
    def experiment(self) -> str:
        """The name of the environment; `base` where none was chosen."""
        return str(self.env) if self.env and self.env != self.default_run_env else str(self.base_env)

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key not in self._read:
            self._read[key] = self._read_files(key)
        return deepcopy(self._read[key])

    def __setitem__(self, key: str, value: dict[str, Any]) -> None:
        # Others may refer to it.
        self._read.clear()
        super().__setitem__(key, value)

    def _read_files(self, key: str) -> dict[str, Any]:
        # Registered at every read: resolvers are global, and a process may hold several loaders.
        OmegaConf.register_new_resolver("experiment", lambda: self.experiment, replace=True)
        OmegaConf.register_new_resolver("parameter", self._parameter, replace=True)
        config = super().__getitem__(key)
        return _expand_home(config) if key == "catalog" else config

    def _parameter(self, name: str) -> Any:
        """The parameter with this dotted name; none where it is not set."""
        value: Any = self["parameters"]
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def _expand_home(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with `~` expanded, which Kedro would take for a folder inside the project."""
    expanded = dict(entry)
    for name, value in entry.items():
        if isinstance(value, dict):
            expanded[name] = _expand_home(value)
        elif name in _PATHS and isinstance(value, str):
            expanded[name] = os.path.expanduser(value)
    return expanded
