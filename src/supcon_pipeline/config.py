"""Configuration: each experiment is an environment with folders of its own."""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path, PurePath
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from supcon_pipeline.commands import CommandError
from supcon_pipeline.config_faults import explain_fault
from supcon_pipeline.core.messages import name_some, nearest_names
from supcon_pipeline.packaged import CONF
from supcon_pipeline.projects import is_packaged, require_plain_path

# Keys of a catalog entry that hold a path.
_PATHS = ("path", "filepath", "folder")


class ExperimentConfigLoader(OmegaConfigLoader):
    """Kedro's loader with three resolvers for the catalog, and `~` for the home folder in its paths.

    `${root:}` is the folder or the address of all artifacts: `root` of `globals.yml`, or else `data`.
    `${experiment:}` is the name of the environment. The catalog puts it into every path, so that two
    environments never read each other's artifacts. `${parameter:images.path}` is a parameter, wherever it was
    set; its value is taken literally, even with characters that are special to OmegaConf.

    The files are read once: a session asks for the parameters six times and for the catalog twice, and that
    was most of the time it took to start.
    """

    def __init__(self, conf_source: str, *arguments: Any, **named: Any):
        self._read: dict[str, dict[str, Any]] = {}
        require_plain_path(Path(conf_source).absolute().parent)
        source = str(CONF) if is_packaged(Path(conf_source)) else conf_source
        super().__init__(source, *arguments, **named)
        self._require_environments()

    def _require_environments(self) -> None:
        """Refuse a source that lacks the default experiment or the one chosen; do without `local`."""
        try:
            # The source may also be an archive or in a bucket.
            entries = self._fs.ls(self._get_conf_env_path(""), detail=True)
        except FileNotFoundError:
            entries = []
        known = sorted(PurePath(entry["name"]).name for entry in entries if entry["type"] == "directory")
        if self.base_env and self.base_env not in known:
            raise CommandError(
                f"configuration must have the folder {self.base_env}, got none in {self.conf_source}; "
                "a folder with all of it is made by: supcon_pipeline init <folder>"
            )
        if self.default_run_env not in known:
            # A package has none, and Kedro would not go on.
            self.default_run_env = self.base_env
        if self.env and self.env not in known:
            nearest = nearest_names(self.env, known)
            remedy = f"did you mean '{nearest[0]}'?" if nearest else "choose one of them"
            raise CommandError(f"env must be one of {name_some(known, 20)}, got '{self.env}'; {remedy}")

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
        if key == "catalog":
            # Not within the resolver, which hides a refusal in an error of its own.
            root = self._root()
            OmegaConf.register_new_resolver("root", lambda: root, replace=True)
        OmegaConf.register_new_resolver("parameter", self._parameter, replace=True)
        try:
            config = super().__getitem__(key)
        except (YAMLError, OmegaConfBaseException, ValueError, AttributeError) as error:
            fault = explain_fault(error, dict(self._files(key)), self.runtime_params or {})
            if fault is None:
                raise
            raise fault from error
        return _expand_home(config) if key == "catalog" else config

    def _files(self, key: str) -> Iterator[tuple[str, bytes]]:
        """The contents of the files that are read for a key, by their paths in the configuration."""
        for env in dict.fromkeys([self.base_env, self.env or self.default_run_env]):
            folder = self._get_conf_env_path(env)
            paths = {
                path for pattern in self.config_patterns[key] for path in self._fs.glob(f"{folder}/{pattern}")
            }
            for path in sorted(paths):
                if self._is_valid_config_path(Path(path)):
                    yield f"conf/{env}/{PurePath(path).relative_to(folder)}", self._fs.cat_file(path)

    def _root(self) -> str:
        """The folder or the address of all artifacts.

        Raises:
            CommandError: where it is none, or holds what Kedro takes for a pattern.
        """
        root = self._globals.get("root", "data")
        if not isinstance(root, str) or not root or set("*?[") & set(root):
            raise CommandError(
                f"root in globals.yml must be a folder or an address such as s3://bucket/path, got {root!r}; "
                "change it, or leave it out for data"
            )
        return root.rstrip("/")

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
