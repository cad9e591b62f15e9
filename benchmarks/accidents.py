"""Accidents of a run: which, when, and how they are made to happen; a part of soak."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from benchmarks.growth import ROOT

SIGNALS = {
    "kill": signal.SIGKILL,
    "terminate": signal.SIGTERM,
    "interrupt": signal.SIGINT,
    "hangup": signal.SIGHUP,
}
# With which status a run may end that met an accident. While Python still starts, a signal ends it as the
# system does; an interrupt is 1 in Click.
CODES = {
    "none": (0,),
    "kill": (-9,),
    "terminate": (143, -15),
    "interrupt": (1, 130, -2),
    "hangup": (129, -1),
    "full disk": (1,),
    # Trainings go on without a process that shares their batches; without another one, a run may end.
    "lost child": (1,),
    "twins": (0,),
}
# To the process alone, or to all of its group, as a terminal does.
ACCIDENTS = (*CODES, *(f"{name} group" for name in SIGNALS))
# Of files on a full disk, in bytes: where nothing can be written, small files, or all but the largest.
LIMITS = (0, 4096, 100_000)
FOLLOWING = ("nothing", "nothing", "again", "evaluation", "prune", "delete")
WAYS = {
    "alone": "",
    "workers": "stage1.loader.num_workers=2,stage2.loader.num_workers=2,data_prep.num_workers=2",
    "processes": "stage1.processes=2,stage1.micro_batch_size=16",
}

# Seconds: a command that takes longer hangs; a process that is there longer than its run stays.
PATIENCE, STAY = 600, 10
# What a run prints for each node.
DONE = "Completed node: "
# In the environment of all processes of the commands.
MARK = "SUPCON_SOAK"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    output: str


class Command:
    """A command of Kedro that runs in a project, in a process group of its own."""

    def __init__(self, project: Path, words: Sequence[str], run_id: str | None = None):
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._mark, self._output = uuid4().hex, ""
        environment = {**os.environ, MARK: self._mark, "PYTHONPATH": paths, "COLUMNS": "200"}
        environment |= {"SUPCON_RUN_ID": run_id} if run_id else {}
        # A pipe, since a limit on the size of files is one on files for the output, too.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kedro", *words],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A killed process may end within a letter.
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._process.stdout or nullcontext([]) as lines:
            for line in lines:
                self._output += line

    def wait_for(self, num_lines: int) -> None:
        """Wait until it has printed so many lines, or ended."""
        while self._output.count("\n") < num_lines and self._process.poll() is None:
            time.sleep(0.02)

    def num_done(self) -> int:
        """How many nodes it has completed so far."""
        return self._output.count(DONE)

    def strike(self, accident: str, limit: int) -> None:
        """Let an accident happen to it, if it still runs."""
        name, _, whom = accident.partition(" ")
        # Any of them may just end.
        with suppress(ProcessLookupError):
            if accident == "full disk":
                for pid in living(self._mark):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
            elif accident == "lost child":
                self._kill_child()
            elif whom:
                os.killpg(self._process.pid, SIGNALS[name])
            elif name in SIGNALS:
                self._process.send_signal(SIGNALS[name])

    def _kill_child(self) -> None:
        """Kill the process that was started last, of those that the command has started, if there is any."""
        children = [pid for pid in living(self._mark) if pid != self._process.pid]
        if children:
            os.kill(max(children), signal.SIGKILL)

    def end(self) -> tuple[Ended, list[str]]:
        """Wait for it; gives the faults of an end that every command has to avoid, too."""
        faults = []
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            faults.append(f"it ran for more than {PATIENCE} s")
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        deadline = time.monotonic() + STAY
        while (staying := living(self._mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid, words in staying.items():
            faults.append(f"process {pid} stayed: {words[:200]}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(STAY)
        # What an interrupt prints while Kedro still starts is not up to the project.
        if "Traceback (most recent call last)" in self._output and code != -signal.SIGINT:
            faults.append("it printed a traceback")
        return Ended(code, self._output), faults


def living(mark: str) -> dict[int, str]:
    """The processes that have a mark in their environment and run: number and command."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # That of a process which has ended is empty.
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (
                    (folder / "cmdline").read_text("utf-8", "replace").replace("\0", " ")
                )
        except OSError:
            continue
    return found


class Blow(NamedTuple):
    """An accident of a run, and when.

    Args:
        accident: of `ACCIDENTS`.
        moment: share of the lines that the run has yet to print.
        delay: seconds after that line.
        limit: of files on a full disk, in bytes.
    """

    accident: str
    moment: float
    delay: float
    limit: int


class Trial(NamedTuple):
    """What is drawn for a run.

    Args:
        number: from 1; the run has it in its id.
        way: of `WAYS`.
        is_whole: whether it prepares its own data; otherwise it takes those of the first run.
        first: what it meets.
        following: what is done before the run is completed; after `nothing` it is left as it is.
        second: what it meets when it is to be completed; after that, it is left alone. Of accident `none`
            for one in four.
    """

    number: int
    way: str
    is_whole: bool
    first: Blow
    following: str
    second: Blow


def draw(number: int, seed: int) -> Trial:
    """The trial of a number, whatever the others are."""
    generator = random.Random(f"{seed}/{number}")
    is_whole = generator.random() < 0.1
    # In a whole run, the baseline would have these processes, too.
    way = generator.choices(tuple(WAYS), (2, 2, 0 if is_whole else 1))[0]
    # All accidents before one comes again.
    first = _draw_blow(generator, ACCIDENTS[(number - 1) % len(ACCIDENTS)])
    following = generator.choice(FOLLOWING)
    second = generator.choice(ACCIDENTS[1:]) if generator.random() < 0.75 else "none"
    return Trial(number, way, is_whole, first, following, _draw_blow(generator, second))


def _draw_blow(generator: random.Random, accident: str) -> Blow:
    # Before the first line, Python starts.
    moment = max(generator.uniform(-0.2, 1), 0)
    return Blow(accident, moment, generator.uniform(0, 0.4), generator.choice(LIMITS))
