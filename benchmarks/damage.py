"""What becomes of a file that is damaged: it is refused by name, or made again, or nobody notices.

python -m benchmarks.damage --every 3

A small project runs everything twice, and a training is killed. Then the files of the second run and of the
training are damaged, one at a time: one bit in the middle is flipped, or the file is cut to half, or emptied.
What reads the file runs in this process: the nodes that take the artifact, `kedro runs` for what it shows,
the same command under the same id for records and progress. The outcome is the worst of theirs:

    unread     no command of the project reads it
    right      same outputs as without damage, to the last bit, and the same is printed
    one line   refused, or left out, by a line with the name of the file
    unnamed    by a line without it
    traceback  any other error
    wrong      other outputs, without a word

Outputs that differ between two undamaged runs, as they hold seconds, are not compared.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from benchmarks.accidents import Command
from benchmarks.growth import ENV, MadeImages, make_project
from kedro.io import DatasetError
from kedro.pipeline import Pipeline
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from supcon_pipeline.commands import find_refusal
from supcon_pipeline.core import checksums

PIPELINES = "__default__,export,lr_finder,enrol,inference,out_of_distribution"
PARAMETERS = """
data_prep: {{image_size: 8}}
stage1:
  schedule: {{num_epochs: 4, warmup_epochs: 1}}
  loader: {{batch_size: 32}}
stage2: {{schedule: {{num_epochs: 2, warmup_epochs: 1}}}}
lr_finder: {{num_steps: 12}}
evaluation: {{knn: {{k: 5}}, learning_curve: {{num_draws: 2}}, bootstrap: {{num_resamples: 50}}}}
visualization: {{tsne: {{perplexity: 5, num_iterations: 500, num_jobs: 1}}}}
enrol: {{path: {folder}}}
inference: {{path: {folder}}}
out_of_distribution: {{path: {folder}}}
"""
# All of one length: within a file, one can stand for another.
FIRST, DAMAGED, TRIAL, STOPPED = "run-1", "run-2", "run-3", "run-4"
OUTCOMES = ("unread", "right", "one line", "unnamed", "traceback", "wrong")
FAULTS = OUTCOMES[3:]
# What `kedro runs` shows of artifacts; of a record it shows all.
SHOWN = {
    "metrics": ("list", "show", "compare"),
    "query_scores": ("compare",),
    "predictions": ("compare",),
    "samples": ("compare",),
    "dataset_card": ("reproduce",),
}
# Folders with files that are no outputs of nodes, or that only others read.
NO_OUTPUTS = {"run_record.json", "tensorboard"}
# Of any run: a node that reads and takes no time.
QUICK = "data_prep.describe_dataset"


def flip(content: bytes) -> bytes:
    """The content with another bit in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 1 for byte in content[middle : middle + 1]) + content[middle + 1 :]


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
}


class Words(logging.Handler):
    """What is said while a block runs: in the log and on the error stream."""

    def __init__(self) -> None:
        super().__init__()
        self._log, self._errors = list[str](), io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the log."""
        self._log.append(record.getMessage())

    @contextlib.contextmanager
    def listening(self) -> Iterator["Words"]:
        """Listen to a block."""
        logger = logging.getLogger("supcon_pipeline")
        logger.addHandler(self)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(self._errors):
                yield self
        finally:
            logger.removeHandler(self)

    def told(self) -> str:
        """What was said."""
        return "\n".join([*self._log, self._errors.getvalue()])


class DamagedProject:
    """A project in which everything has run, whose files are damaged one at a time.

    Args:
        folder: of the project, which must not exist.
        pipelines: what is run, as for `kedro run`.
    """

    def __init__(self, folder: Path, pipelines: str):
        from kedro.framework.project import pipelines as registered
        from kedro.framework.startup import bootstrap_project

        self.folder, self.data, self.names = folder, folder / "data", pipelines.split(",")
        make_project(folder, count=120, most_classes=3)
        (folder / "images/new").mkdir(parents=True)
        for number, image in enumerate(MadeImages(np.zeros(6, int), 2)):
            Image.fromarray(image).save(folder / f"images/new/{number}.png")
        parameters = PARAMETERS.format(folder=folder / "images")
        (folder / "conf" / ENV / "parameters.yml").write_text(parameters)
        self.metadata = bootstrap_project(folder)
        self.graph = sum((registered[name] for name in self.names), Pipeline([]))
        first, again = (self.made_by(run_id, pipeline_names=self.names) for run_id in (FIRST, DAMAGED))
        self.varying = {name for name in again if again[name] != first[name]}
        if any(node.namespace == "stage1" for node in self.graph.nodes):
            self.stop_training()
        self.whole, self.printed = folder / "whole", dict[tuple[str, ...], str]()
        self.expected = dict[str, dict[str, bytes]]()
        shutil.copytree(self.data, self.whole)

    def stop_training(self) -> None:
        """Kill a training that has saved progress."""
        command = Command(self.folder, ["run", "--env", ENV, "--pipelines", "stage1"], STOPPED)
        progress = self.data / "06_models" / ENV / "stage1_progress"
        while not list(progress.glob("*/state.pt")):
            time.sleep(0.01)
        command.strike("kill", 0)
        if command.end()[0].code != -signal.SIGKILL:
            sys.exit("The training ended before it was killed")

    @contextlib.contextmanager
    def session(self, run_id: str) -> Iterator[Any]:
        """A session of this process, which has read nothing yet."""
        from kedro.framework.project import settings

        checksums._unchanged.clear()
        with (
            patch.dict(os.environ, {"SUPCON_RUN_ID": run_id}),
            settings.SESSION_CLASS.create(self.folder, env=ENV) as session,
        ):
            yield session

    def show(self, words: Sequence[str]) -> str:
        """What `kedro runs` prints."""
        from supcon_pipeline.cli import runs

        checksums._unchanged.clear()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runs.main([*words, "--env", ENV], standalone_mode=False, obj=self.metadata)
        # A file that is cut is smaller.
        return re.sub(r"[\d.]+ (bytes|[kMG]B)", "", printed.getvalue())

    def outputs(self, run_id: str) -> dict[str, bytes]:
        """The artifacts of a run by their place, with the id of the first run in place of its own."""
        return {
            str(path.relative_to(self.data)).replace(run_id, FIRST): path.read_bytes().replace(
                run_id.encode(), FIRST.encode()
            )
            for path in self.data.glob(f"*/{ENV}/*/{run_id}/**/*")
            if path.is_file() and path.suffix != checksums.SUFFIX and not {*path.parts} & NO_OUTPUTS
        }

    def files(self) -> dict[str, list[Path]]:
        """The files that are damaged, by kind."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.data.glob(f"*/{ENV}/**/*")):
            if path.is_file() and FIRST not in path.parts:
                found.setdefault(self.kind(path), []).append(path)
        return found

    def kind(self, path: Path) -> str:
        """What a file is, for the table."""
        name = self.entry(path)
        if path.suffix == checksums.SUFFIX:
            return "checksum"
        if name == "run_record":
            return "record" if path.stem == name else "session"
        if name in ("packing", "tensorboard") or name.endswith("_progress"):
            return name.rpartition("_")[2]
        return path.suffix.removeprefix(".") if path.stem == name else "folder"

    def entry(self, path: Path) -> str:
        """The artifact that a file is of."""
        return path.relative_to(self.data).parts[2].partition(".")[0]

    def try_out(self, path: Path, way: str) -> tuple[str, str]:
        """The outcome of damage to a file, and what was told."""
        content, status = path.read_bytes(), path.stat()
        changed = WAYS[way](content)
        if changed == content:
            return "unread", ""
        commands = self.commands(path)
        # A file of its own: this one has other names, too.
        path.unlink()
        path.write_bytes(changed)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        outcomes = [("unread", ""), *(self.judge(command, path) for command in commands)]
        self.restore()
        return max(outcomes, key=lambda outcome: OUTCOMES.index(outcome[0]))

    def restore(self) -> None:
        """All files as they were."""
        shutil.rmtree(self.data)
        shutil.copytree(self.whole, self.data, copy_function=os.link)

    def commands(self, path: Path) -> list[Callable[[], bool]]:
        """What reads a file; each gives whether its outputs are right."""
        name, run_id = self.entry(path), STOPPED if STOPPED in path.parts else DAMAGED
        again = ["stage1"] if run_id == STOPPED else self.names
        if name == "packing":
            return [self.trial(TRIAL, pipeline_names=["data_prep"])]
        if name == "tensorboard":
            return []
        if name.endswith("_progress"):
            return [self.page("prune"), self.trial(STOPPED, pipeline_names=["stage1"])]
        if name == "run_record":
            pages = [self.page(page, run_id) for page in ("list", "prune", "show", "compare", "reproduce")]
            quick = self.trial(TRIAL, pipeline_names=self.names, node_names=[QUICK])
            return [*pages, quick, self.trial(run_id, pipeline_names=again)]
        readers = [node.name for node in self.graph.nodes if name in node.inputs]
        # One at a time: together, some would replace what others read.
        runs = [self.trial(TRIAL, pipeline_names=self.names, node_names=[reader]) for reader in readers]
        pages = [self.page(page) for page in SHOWN.get(name, ())]
        return [*pages, *(runs or [partial(self.is_loaded, name, path)])]

    def page(self, name: str, run_id: str = DAMAGED) -> Callable[[], bool]:
        """A command of `kedro runs`, which gives whether it prints the same as now."""
        words = {"show": [run_id], "compare": [FIRST, run_id], "reproduce": [run_id], "list": ["--json"]}
        command = [name, *words.get(name, [])]
        if (*command,) not in self.printed:
            self.printed[*command,] = self.show(command)
        return partial(self.is_same, command)

    def is_same(self, command: Sequence[str]) -> bool:
        """Whether a command of `kedro runs` prints the same as without damage."""
        found, expected = self.show(command), self.printed[*command,]
        removed = {line for line in found.splitlines() if line.startswith("Would remove")}
        if any("set aside" not in line for line in removed - {*expected.splitlines()}):
            raise RuntimeError(f"prune removes what it should not: {found}")
        return found == expected

    def is_loaded(self, name: str, path: Path) -> bool:
        """Whether what a notebook loads can be what was saved."""
        with self.session(DAMAGED) as session:
            session.load_context().catalog.load(name)
        return path.suffix == checksums.SUFFIX

    def trial(self, run_id: str, **asked: Any) -> Callable[[], bool]:
        """A run, which gives whether its outputs are as without damage, but for those that hold seconds."""
        key = json.dumps([run_id, asked])
        if key not in self.expected:
            self.expected[key] = self.made_by(run_id, **asked)
            self.restore()

        def is_right() -> bool:
            made, expected = self.made_by(run_id, **asked), self.expected[key]
            # What was made before under the same id is there, too.
            compared = expected.keys() - self.varying
            return bool(expected) and all(made.get(name) == expected[name] for name in compared)

        return is_right

    def made_by(self, run_id: str, **asked: Any) -> dict[str, bytes]:
        """The outputs of a run."""
        with self.session(run_id) as session:
            session.run(**asked)
        return self.outputs(run_id)

    def judge(self, command: Callable[[], bool], path: Path) -> tuple[str, str]:
        """The outcome of one command, and what it told."""
        name, told, outcome = path.name.removesuffix(checksums.SUFFIX), "", "right"
        with Words().listening() as said:
            try:
                if not command():
                    outcome = "one line" if name in said.told() else "wrong"
            except Exception as error:
                refusal = error if isinstance(error, click.ClickException) else find_refusal(error)
                told = str(refusal or error)
                is_named = name in told + said.told() and "\n" not in told
                outcome = ("one line" if is_named else "unnamed") if refusal else "traceback"
                if isinstance(error, DatasetError) and "must be read" in told:
                    outcome = "unread"
        return outcome, f"{told} {said.told()}".strip()


def try_all(project: DamagedProject, kinds: Sequence[str], ways: Sequence[str], every: int) -> dict[str, Any]:
    """What has become of the files by kind: their number, and the outcomes; faults are printed."""
    found: dict[str, Any] = {}
    for kind, paths in project.files().items():
        chosen = paths[::every] if not kinds or kind in kinds else []
        outcomes = Counter[str]()
        for path in chosen:
            for way in ways:
                outcome, told = project.try_out(path, way)
                outcomes[outcome] += 1
                if outcome in FAULTS:
                    print(f"{path.relative_to(project.data)} {way}: {outcome}: {told[:600]}", flush=True)
        if chosen:
            found[kind] = {"files": len(chosen), **{name: outcomes[name] for name in OUTCOMES}}
            print(f"{kind}: {dict(outcomes)}", flush=True)
    return found


def show(found: dict[str, Any], seconds: float) -> None:
    """Print the table in Markdown, and the result."""
    table = Table("kind of file", "files", *OUTCOMES, box=box.MARKDOWN)
    for kind, row in found.items():
        table.add_row(kind, *map(str, row.values()))
    Console(width=120).print(table)
    print("RESULT", json.dumps({"kinds": found, "seconds": seconds}))


def main() -> None:
    """Make the project, damage its files, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipelines", default=PIPELINES, help="what is run, as for `kedro run`")
    parser.add_argument("--kinds", nargs="+", default=[], help="kinds of files; all by default")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--every", type=int, default=1, help="of each kind, one of so many files")
    parser.add_argument("--folder", type=Path, help="keep the project in this folder, which must not exist")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"COLUMNS": "200"}):
        project = DamagedProject((arguments.folder or Path(folder, "project")).resolve(), arguments.pipelines)
        found = try_all(project, arguments.kinds, arguments.ways, arguments.every)
    show(found, time.perf_counter() - began)


if __name__ == "__main__":
    main()
