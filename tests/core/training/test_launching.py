import json
import logging
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import ROOT
from tests.core.training import launched
from tests.core.training.launched import START_METHOD
from tests.core.training.trainings import make_data
from torch.distributed.launcher import api as launcher_api

from supcon_pipeline.core.messages import DivergenceError, InputError
from supcon_pipeline.core.ranks import Ranks
from supcon_pipeline.core.training import launching
from supcon_pipeline.core.training.launching import launch, pack_error
from supcon_pipeline.core.training.monitoring import epoch_logger
from supcon_pipeline.core.training.pickling import to_bytes
from supcon_pipeline.core.training.progress import Progress, ProgressStore
from supcon_pipeline.core.training.resumable import count_processes, run_stage
from supcon_pipeline.core.training.tensorboard import TrainingLog

pytestmark = pytest.mark.usefixtures("no_gpu")


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that do not import everything anew."""
    config = partial(launcher_api.LaunchConfig, start_method=START_METHOD)
    monkeypatch.setattr(launcher_api, "LaunchConfig", config)


def train_forked(folder: Path, stage: Any, count: int = 2) -> dict[str, Any]:
    """The last saved state of processes that are not looked after; one may die."""
    folder.mkdir(exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    context = torch.multiprocessing.start_processes(
        launched.train_together,
        # Spawned processes would share the weights of a stage that is not packed.
        (count, folder, to_bytes(stage)),
        nprocs=count,
        join=False,
        start_method=START_METHOD,
    )
    try:
        while not context.join():
            pass
    except (torch.multiprocessing.ProcessExitedException, torch.multiprocessing.ProcessRaisedException):
        pass
    state = Progress(folder).latest()
    assert state is not None
    return state


@pytest.fixture(scope="module")
def unhurt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last state of two processes that nothing happened to."""
    return train_forked(tmp_path_factory.mktemp("unhurt"), launched.make_stage(processes=2))


def assert_same_state(state: dict[str, Any], expected: dict[str, Any]) -> None:
    assert state["history"] == expected["history"]
    assert len(state["history"]) == 2
    for name, value in expected["training"]["model"].items():
        assert torch.equal(state["training"]["model"][name], value), name
    for ours, theirs in zip(state["top"], expected["top"], strict=True):
        assert all(torch.equal(ours["tensors"][name], value) for name, value in theirs["tensors"].items())


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_go_on_after_one_was_killed_end_with_the_same_weights_bit_for_bit(
    rank: int, tmp_path: Path, unhurt: dict[str, Any]
) -> None:
    stage = launched.make_killing_stage(rank, 5, tmp_path / "mark", processes=2)
    assert train_forked(tmp_path, stage)["training"]["step"] == 4
    assert_same_state(train_forked(tmp_path, stage), unhurt)


def test_another_number_of_processes_goes_on_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = launched.make_killing_stage(1, 5, tmp_path / "mark", processes=2)
    before = train_forked(tmp_path / Progress(tmp_path).path.parent, stage)
    data, store = make_data(), ProgressStore(tmp_path / "progress")
    alone = launched.make_stage()
    assert alone.identity() == stage.identity()
    store.open(alone.identity()).save(before)
    caplog.clear()
    _, history = run_stage(alone, data, launched.NoLog(), store, "run")
    assert "Going on with 1 processes instead of 2" in caplog.text
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[0] == before["history"][0]


@pytest.mark.usefixtures("forking")
def test_the_launcher_starts_all_again_where_one_was_killed(
    tmp_path: Path, unhurt: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stage = launched.make_killing_stage(1, 5, tmp_path / "mark", processes=2)
    store = ProgressStore(tmp_path / "progress")
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with caplog.at_level(logging.INFO), TrainingLog(str(tmp_path / "log")) as log:
        checkpoints, history = run_stage(stage, make_data(), log, store, "run")
    state = store.open(stage.identity()).latest()
    assert state is not None
    assert_same_state(state, unhurt)
    assert history == unhurt["history"]
    assert [part.metadata["run_id"] for part in checkpoints] == ["run", "run"]
    said = [record.getMessage() for record in caplog.records]
    assert "A process was lost: all 2 go on from what was saved last" in said
    assert "Resuming stage 1 after epoch 1, step 4" in said
    # The first process alone has spoken, and once for each epoch.
    assert len([line for line in said if line.startswith("stage 1: epoch")]) == 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("loader", "most"),
    [
        # 36 images to train on are four batches of 9.
        ({"batch_size": 10}, 9),
        ({"batch_size": 4, "sampler": "class_balanced", "images_per_class": 2}, 4),
    ],
)
def test_more_processes_than_images_of_a_batch_are_refused(loader: dict[str, Any], most: int) -> None:
    loader = {**loader, "num_workers": 0}
    data = make_data()
    assert count_processes(launched.make_stage(processes=most, loader=loader), data) == most
    expected = (
        f"stage1.processes must be at most {most} (images of a batch), got {most + 1}; "
        f"add --params stage1.processes={most}"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        count_processes(launched.make_stage(processes=most + 1, loader=loader), data)


@pytest.mark.parametrize(("num_gpus", "count"), [(0, 1), (2, 2), (50, 12)])
def test_auto_is_one_process_for_each_gpu_that_is_of_use(
    num_gpus: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = launched.make_stage(processes="auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert count_processes(stage, make_data()) == count


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = launched.make_stage(processes=3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"at most 2 \(GPUs\), got 3; add --params stage1.processes=2"):
        count_processes(stage, make_data())


@pytest.mark.usefixtures("forking")
def test_an_error_of_a_process_is_that_of_its_parent_and_says_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "MAX_RESTARTS", 0)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(ZeroDivisionError, match=r"^division by zero") as caught:
        launch(launched.fail, 2, "stage1.processes", 0, tmp_path)
    assert "in fail" in caught.value.__notes__[0]
    assert not list(temporary.iterdir())


def on_two_hosts(folder: Path, what: str) -> list[tuple[int, str, str]]:
    """The exit code, output and errors of two hosts on the loopback address."""
    with socket.socket() as listening:
        listening.bind(("", 0))
        port = listening.getsockname()[1]
    script = Path(launched.__file__).with_name("on_hosts.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    hosts = [
        subprocess.Popen(
            [sys.executable, script, folder, str(port), str(number), what],
            **{"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
        )
        for number in (0, 1)
    ]
    try:
        ends = [host.communicate(timeout=300) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    return [(host.returncode, *end) for host, end in zip(hosts, ends, strict=True)]


# The second process is the other host.
def test_two_hosts_train_as_two_processes_do_though_one_of_the_other_dies(
    tmp_path: Path, unhurt: dict[str, Any]
) -> None:
    ends = on_two_hosts(tmp_path, "1")
    assert [(code, output) for code, output, _ in ends] == [(0, ""), (0, "")], ends
    assert json.loads((tmp_path / "history.json").read_text()) == unhurt["history"]
    (path,) = (tmp_path / "progress").glob("*/state.pt")
    state = Progress(path.parent).latest()
    assert state is not None
    assert_same_state(state, unhurt)
    assert (tmp_path / "mark").exists()
    # What was shared is gone.
    assert not list((tmp_path / "progress").glob("*/launch-*"))


def test_what_fails_on_one_host_is_said_on_both(tmp_path: Path) -> None:
    ends = on_two_hosts(tmp_path, "fail")
    assert [(code, output) for code, output, _ in ends] == [(0, "ZeroDivisionError: division by zero\n")] * 2


@pytest.mark.usefixtures("forking")
def test_what_processes_say_is_shown_once_where_each_has_the_log_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # As conf/logging.yml: epochs by a handler of their own, all else by that of the root.
    shown = logging.StreamHandler(os.fdopen(os.dup(1), "w"))
    monkeypatch.setattr(epoch_logger, "handlers", [shown])
    monkeypatch.setattr(epoch_logger, "propagate", False)
    monkeypatch.setattr(logging.root, "handlers", [shown])
    monkeypatch.setattr(logging.getLogger("supcon_pipeline"), "level", logging.INFO)
    launch(launched.speak, 2, "stage1.processes", 0, tmp_path)
    shown.stream.close()
    lines = capfd.readouterr().out.splitlines()
    assert sorted(line for line in lines if "by" in line) == ["epoch told by 0", "warned by 0"]


@pytest.mark.parametrize("kind", [InputError, DivergenceError])
def test_what_the_user_did_wrong_crosses_a_process_as_one_line(kind: type[Exception]) -> None:
    error = pickle.loads(pack_error(kind("lr must be lower")))
    assert type(error) is kind
    assert (str(error), getattr(error, "__notes__", [])) == ("lr must be lower", [])


def test_an_error_that_does_not_cross_a_process_is_told_in_words() -> None:
    class LocalError(Exception):
        pass

    error = pickle.loads(pack_error(LocalError("five")))
    assert (type(error), str(error)) == (RuntimeError, "LocalError: five")
    assert "LocalError: five" in error.__notes__[0]


def test_an_interrupt_ends_all_processes(tmp_path: Path) -> None:
    script = Path(launched.__file__).with_name("waiting.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(children := list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) == 2
    parent.send_signal(signal.SIGINT)
    try:
        output, errors = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert (output, errors) == (b"KeyboardInterrupt\n", b"")
    assert not any(Path("/proc", path.name).exists() for path in children)


def test_a_process_that_lacks_memory_is_not_taken_for_one_that_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reduce(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        Ranks(count=2).sum_(torch.zeros(3))
    again = pickle.loads(pack_error(torch.OutOfMemoryError("CUDA out of memory")))
    assert type(again) is torch.OutOfMemoryError
