"""Runs that meet accidents, one after another in one project: what each leaves, and whether all goes on.

python -m benchmarks.soak --runs 50 --seed 0 --folder /tmp/soak

At a random moment each run is killed, told to stop, loses a process that it has started, or finds a full
disk or a second process with its id. Other commands follow, until the same command has completed it; three
times in four, that command meets an accident of its own before it is left alone. What is looked at after
each: the exit code, one line in place of a traceback, processes that stay, what `kedro runs list` says, and
the metrics, which must be those of a run that nothing has disturbed, to the last bit. The same seed draws
the same accidents, but what a run does at that moment differs. A full disk is a limit on the size of the
files that a run writes from then on.
"""

import argparse
import json
import math
import re
import shlex
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accidents import ACCIDENTS, CODES, DONE, SIGNALS, WAYS, Blow, Command, Ended, Trial, draw
from benchmarks.growth import ENV, make_project
from rich import box
from rich.console import Console
from rich.table import Table

PIPELINES = "data_prep,published,stage1,stage1_swa,stage2,stage2_swa,baseline,baseline_swa,evaluation"
# What a short run takes from the first.
TAKEN = ("data_prep", "published", "baseline", "baseline_swa")
PARAMETERS = """
data_prep: {image_size: 8}
stage1:
  schedule: {num_epochs: 4, warmup_epochs: 1}
  loader: {batch_size: 32}
stage2: {schedule: {num_epochs: 2, warmup_epochs: 1}}
evaluation: {knn: {k: 5}, learning_curve: {num_draws: 2}, bootstrap: {num_resamples: 50}}
"""


@dataclass
class Tally:
    """What an accident has come to, each time that it happened."""

    times: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Soak:
    """A project, and what its runs have come to.

    Args:
        project: folder of the project.
        pipelines: what a whole run is made of, as for `kedro run`.
        seed: of what is drawn.
    """

    def __init__(self, project: Path, pipelines: str, seed: int):
        self.project, self.pipelines, self.seed = project, pipelines, seed
        self.tallies = {accident: Tally() for accident in ACCIDENTS}
        self.num_commands, self.num_lines, self.known = 0, dict[bool, int](), list[Any]()
        self._faults, self.completed, self._seen = list[str](), list[str](), set[Path]()

    def words(self, way: str, is_whole: bool) -> list[str]:
        """The arguments of Kedro for a run."""
        names = self.pipelines.split(",")
        names = names if is_whole else [name for name in names if name not in TAKEN] or names
        params = ["--params", WAYS[way]] if WAYS[way] else []
        return ["run", "--env", ENV, "--pipelines", ",".join(names), *params]

    def start(self, words: Sequence[str], run_id: str | None = None) -> Command:
        """Start a command, and count it."""
        self.num_commands += 1
        return Command(self.project, words, run_id)

    def end(self, command: Command, name: str, codes: Sequence[int]) -> Ended:
        """Wait for a command; note what is wrong with its end."""
        ended, faults = command.end()
        if ended.code not in codes:
            faults.append(f"it ended with {ended.code}")
        if ended.code == 1 and not is_told_in_a_line(ended.output):
            faults.append("it did not end with one line")
        self._faults += [f"{name}: {fault}" for fault in faults]
        if faults:
            print(f"--- {name}\n{ended.output}", flush=True)
        return ended

    def run(self, words: Sequence[str], name: str, run_id: str | None = None) -> Ended:
        """A command that has to end well."""
        return self.end(self.start(words, run_id), name, [0])

    def outcomes(self) -> dict[str, str]:
        """What `kedro runs list` says of each run."""
        ended = self.run(["runs", "list", "--env", ENV, "--json"], "list")
        # Lines of the log may stand before it.
        begin = ended.output.find("[\n")
        runs = json.JSONDecoder().raw_decode(ended.output, begin)[0] if begin >= 0 else []
        return {run["id"]: run["outcome"] for run in runs}

    def undisturbed(self, run_id: str, way: str, is_whole: bool) -> Any:
        """The metrics of a run without any accident, which others must have, too."""
        ended = self.run(self.words(way, is_whole), run_id, run_id)
        self.num_lines[is_whole] = ended.output.count("\n")
        metrics = [read_metrics(path) for path in self.metrics_files(run_id)]
        self.known += metrics
        return metrics

    def metrics_files(self, run_id: str = "*") -> list[Path]:
        """The metrics of one run or of all."""
        return sorted(self.project.glob(f"data/08_reporting/{ENV}/metrics.json/{run_id}/metrics.json"))

    def try_out(self, trial: Trial) -> None:
        """One run with its accidents, and all that follows."""
        self._faults, began = [], time.perf_counter()
        run_id, words = f"run-{trial.number:03d}", self.words(trial.way, trial.is_whole)
        num_lines = self.num_lines.get(trial.is_whole, self.num_lines[True])
        whole = "whole" if trial.is_whole else "short"
        print(f"{run_id} ({trial.way}, {whole}), then {trial.following}", flush=True)
        printed, outcome = self.hurt(trial.first, run_id, words, num_lines, "absent")
        self.follow(trial.following, run_id, outcome)
        # A whole run that is not completed would rightly stop all that read its data.
        if trial.following != "nothing" or trial.is_whole:
            if trial.second.accident != "none":
                present = "absent" if trial.following == "delete" else outcome
                left = num_lines if present == "absent" else max(num_lines - printed, 0)
                self.hurt(trial.second, run_id, words, left, present)
            self.run(words, "the same again", run_id)
            self.completed.append(run_id)
        self.require_known_metrics()
        self.tallies[trial.first.accident].faults += [f"{run_id}: {fault}" for fault in self._faults]
        print("".join(f"    FAULT {fault}\n" for fault in self._faults), end="")
        print(f"    {time.perf_counter() - began:.0f} s in all", flush=True)

    def hurt(self, blow: Blow, run_id: str, words: list[str], num_lines: int, before: str) -> tuple[int, str]:
        """Run it with an accident; gives how many lines it has printed, and its outcome.

        Args:
            blow: the accident.
            run_id: of the run.
            words: of the command.
            num_lines: that it would print.
            before: its outcome until now.
        """
        after = round(blow.moment * num_lines)
        ended = self.disturb(blow, run_id, words, after)
        outcome = self.outcomes().get(run_id, "absent")
        self.require_outcome(blow.accident, run_id, ended.code, outcome, before)
        tally = self.tallies[blow.accident]
        tally.times += 1
        tally.codes[str(ended.code)] += 1
        tally.outcomes[outcome] += 1
        print(f"    {blow.accident} after line {after}: {ended.code}, {outcome}", flush=True)
        return ended.output.count("\n"), outcome

    def disturb(self, blow: Blow, run_id: str, words: list[str], after: int) -> Ended:
        """A run that meets its accident after some lines."""
        command = self.start(words, run_id)
        # A second process takes a while until it looks for the first.
        command.wait_for(0 if blow.accident == "twins" else after)
        time.sleep(blow.delay)
        num_done = command.num_done()
        command.strike(blow.accident, blow.limit)
        if blow.accident == "twins":
            second = self.end(self.start(words, run_id), "the second process", (0, 1))
            # Whichever came first has done it.
            return self.end(command, "the first process", (0,) if second.code else (0, 1))
        # The accident may have come when all was done.
        name = blow.accident.removesuffix(" group")
        ended = self.end(command, "the run", [*CODES[name], 0])
        if name in SIGNALS and ended.output.count(DONE) > num_done + 1:
            self._faults.append(f"it completed {ended.output.count(DONE) - num_done} nodes after the signal")
        return ended

    def require(self, wanted: Any, found: Any, name: str) -> None:
        """Note a fault where something is not as it has to be."""
        if found != wanted:
            self._faults.append(f"{name} must be {wanted}, got {found}")

    def require_outcome(self, accident: str, run_id: str, code: int, outcome: str, before: str) -> None:
        """Note where the list does not say what became of a run.

        One that was stopped after all was saved is completed; before it began, as it was.
        """
        if code == 0 or accident == "twins":
            self.require("completed", outcome, "outcome")
        elif outcome == "failed" and accident in ("full disk", "lost child"):
            return
        elif outcome == before == "absent":
            self.require([], self.files_of(run_id), "artifacts of a run that is not in the list")
        elif outcome not in ("interrupted", "completed", before):
            self._faults.append(f"outcome must be interrupted, got {outcome}")

    def files_of(self, run_id: str) -> list[str]:
        """The files that a run has made."""
        return [str(path) for path in self.project.glob(f"data/*/{ENV}/**/{run_id}/**/*") if path.is_file()]

    def follow(self, following: str, run_id: str, outcome: str) -> None:
        """What is typed before the run is completed."""
        if following == "evaluation" and "evaluation" in self.pipelines:
            self.evaluate()
        elif following == "prune":
            self.run(["runs", "prune", "--env", ENV, "--yes"], "prune")
        elif following == "delete" and outcome != "absent":
            self.run(["runs", "delete", run_id, "--env", ENV, "--yes"], "delete")
            self.require([], self.files_of(run_id), "files of a run that was deleted")

    def evaluate(self) -> None:
        """Evaluate, without an id; where that is refused, first do what the refusal says."""
        words = ["run", "--env", ENV, "--pipelines", "evaluation"]
        refused = self.end(self.start(words), "evaluation", (0, 1))
        if refused.code == 0:
            return
        found = re.search(r"type: (?:SUPCON_RUN_ID=(\S+) )?kedro (.+?)(?:; |$)", refused.output, re.MULTILINE)
        if found is None:
            self._faults.append(f"evaluation: no remedy in {refused.output[-500:]}")
            return
        self.run(shlex.split(found[2]), f"remedy {found[0]}", found[1])
        self.run(words, "evaluation after the remedy")

    def require_known_metrics(self) -> None:
        """Note new metrics that no undisturbed run has."""
        for path in self.metrics_files():
            if path not in self._seen and read_metrics(path) not in self.known:
                self._faults.append(f"{path} differs from those of every undisturbed run")
            self._seen.add(path)

    def finish(self) -> list[str]:
        """Run once more undisturbed and prune; gives what is wrong in the end."""
        self._faults = []
        first = self.known[:1]
        self.require(first, self.undisturbed("last", "alone", is_whole=True), "metrics of the last run")
        self.run(["runs", "prune", "--env", ENV, "--yes"], "prune")
        kept = self.outcomes()
        self.require(
            [], [name for name in self.completed if kept.get(name) != "completed"], "incomplete runs"
        )
        data = self.project / "data"
        stray = [
            str(path.relative_to(data))
            for path in data.rglob("*")
            if path.is_file() and not {*path.parts} & {*kept, "packing"}
        ]
        half = [str(path) for pattern in ("*.tmp", "*.broken") for path in data.rglob(pattern)]
        self.require([], stray, "files of no run")
        self.require([], half, "half-written and damaged files")
        return self._faults


def is_told_in_a_line(output: str) -> bool:
    """Whether the last that was printed is one line about what is wrong, or that it was aborted."""
    lines = [line for line in output.splitlines() if line.strip()]
    return bool(lines) and (lines[-1].startswith("Error: ") or lines[-1] == "Aborted!")


def read_metrics(path: Path) -> Any:
    """Metrics without what tells how they were made."""
    return without_origin(json.loads(path.read_text()))


def without_origin(value: Any) -> Any:
    """Nested values without ids and parameters of runs."""
    if isinstance(value, dict):
        return {
            name: without_origin(inner)
            for name, inner in value.items()
            if name not in ("run_id", "checkpoint")
        }
    return value


def show(soak: Soak, last: Sequence[str], seconds: float) -> None:
    """Print the table in Markdown, the faults, and the result."""
    table = Table("accident", "times", "exit codes", "outcome of the run then", "faults", box=box.MARKDOWN)
    for accident, tally in soak.tallies.items():
        counts = [
            ", ".join(f"{name}: {count}" for name, count in counter.most_common())
            for counter in (tally.codes, tally.outcomes)
        ]
        table.add_row(accident, str(tally.times), *counts, str(len(tally.faults)))
    Console(width=120).print(table)
    rows = {accident: vars(tally) for accident, tally in soak.tallies.items()}
    result = {"accidents": rows, "last": last, "commands": soak.num_commands, "seconds": seconds}
    print("RESULT", json.dumps(result))


def main() -> None:
    """Make a project, let its runs meet accidents, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="with accidents")
    parser.add_argument("--first", type=int, default=1, help="number of the first of them")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no further one begins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipelines", default=PIPELINES, help="of a whole run, as for `kedro run`")
    parser.add_argument("--folder", type=Path, help="keep the project in this folder, which must not exist")
    arguments = parser.parse_args()
    began = time.perf_counter()
    # A shell lets its background ignore interrupts, nohup lets it ignore hangups: and so would all runs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        project = (arguments.folder or Path(folder, "project")).resolve()
        make_project(project, count=120, most_classes=3)
        (project / "conf" / ENV / "parameters.yml").write_text(PARAMETERS)
        soak = Soak(project, arguments.pipelines, arguments.seed)
        soak.undisturbed("first", "alone", is_whole=True)
        if "stage1" in arguments.pipelines:
            # Workers change no number; several processes do.
            soak.undisturbed("short", "processes", is_whole=False)
        for number in range(arguments.first, arguments.first + arguments.runs):
            if time.perf_counter() - began < 60 * arguments.minutes:
                soak.try_out(draw(number, arguments.seed))
        last = soak.finish()
    show(soak, last, time.perf_counter() - began)


if __name__ == "__main__":
    main()
