import json
import logging
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.conftest import ROOT
from tests.core.training.resume_process import NoLog
from tests.core.training.trainings import CARD, make_data, stage1_parameters

from supcon_pipeline.core.training.progress import ProgressStore, describe_difference
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.resumable import run_stage

pytestmark = pytest.mark.usefixtures("no_gpu")


def test_a_training_killed_at_many_moments_ends_with_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    script = Path(__file__).with_name("resume_process.py")
    # One thread: the processes are forked, and a pool of threads would not come along.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_killed"] >= 5
    with (
        safe_open(tmp_path / "whole.safetensors", framework="pt") as whole,
        safe_open(tmp_path / "killed.safetensors", framework="pt") as killed,
    ):
        assert whole.metadata() == killed.metadata()
        assert set(whole.keys()) == set(killed.keys())
        for name in whole.keys():  # noqa: SIM118
            assert torch.equal(whole.get_tensor(name), killed.get_tensor(name)), name


def test_progress_of_another_training_is_named_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = ProgressStore(tmp_path).open({"parameters": {"optimizer": {"lr": 0.1}}})
    theirs.save({"step": 3})
    with caplog.at_level(logging.WARNING):
        ours = ProgressStore(tmp_path).open({"parameters": {"optimizer": {"lr": 0.2}}})
    assert "parameters.optimizer.lr was 0.1, is 0.2" in caplog.text
    assert ours.latest() is None
    assert theirs.latest() == {"step": 3}


def test_only_the_progress_that_was_used_is_cleared(tmp_path: Path) -> None:
    theirs = ProgressStore(tmp_path).open({"a": 1})
    theirs.save({"step": 3})
    store = ProgressStore(tmp_path)
    store.open({"a": 2}).save({"step": 1})
    store.clear()
    assert theirs.latest() == {"step": 3}
    assert store.open({"a": 2}).latest() is None


def test_a_difference_names_what_was_added_and_counts_the_rest() -> None:
    theirs, ours = {"a": 1, "b": [1, 2], "c": 0, "d": 0}, {"a": 1, "b": [1, 3], "c": 1, "d": 1, "e": 5}
    expected = "b.1 was 2, is 3; c was 0, is 1; d was 0, is 1; and 1 more"
    assert describe_difference(theirs, ours) == expected


def test_a_finished_training_is_not_trained_again_before_its_artifacts_are_saved(tmp_path: Path) -> None:
    data, store = make_data(), ProgressStore(tmp_path)
    results = []
    for run_id in ("first", "second"):
        stage = contrastive_stage(data, CARD, stage1_parameters())
        results.append(run_stage(stage, data, NoLog(), store, run_id))
    (first, first_history), (second, second_history) = results
    assert first_history == second_history
    assert {part.metadata["run_id"] for part in second} == {"second"}
    assert all(torch.equal(first[0].tensors[name], value) for name, value in second[0].tensors.items())


@pytest.mark.parametrize("content", [b"", None, b"\x89PNG\r\n\x1a\n"])
def test_a_broken_state_is_set_aside_and_the_training_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    progress = ProgressStore(tmp_path).open({"a": 1})
    progress.save({"step": 3})
    whole = progress.path.read_bytes()
    broken = whole[: len(whole) // 2] if content is None else content
    progress.path.write_bytes(broken)
    assert progress.latest() is None
    said = "is not as it was saved, so this training starts anew; the file is now state.pt.broken"
    assert caplog.messages == [f"{progress.path} {said}"]
    assert progress.path.with_name("state.pt.broken").read_bytes() == broken
    assert progress.latest() is None
    progress.save({"step": 4})
    assert progress.latest() == {"step": 4}


def test_a_flipped_byte_of_a_state_is_noticed(tmp_path: Path) -> None:
    progress = ProgressStore(tmp_path).open({"a": 1})
    progress.save({"weights": torch.zeros(1000)})
    content = bytearray(progress.path.read_bytes())
    content[len(content) // 2] ^= 1
    progress.path.write_bytes(content)
    assert progress.latest() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"a": 2}'])
def test_a_broken_identity_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    store = ProgressStore(tmp_path)
    theirs = store.open({"a": 1})
    theirs.save({"step": 3})
    identity = theirs.path.with_name("identity.json")
    identity.write_bytes(content)
    for _ in range(2):
        assert store.open({"a": 3}).latest() is None
    assert caplog.messages == [f"{identity} is not as it was written; it is now identity.json.broken"]
    assert store.open({"a": 1}).latest() == {"step": 3}


def test_a_full_disk_keeps_the_state_of_before_and_the_process(tmp_path: Path) -> None:
    progress = ProgressStore(tmp_path).open({"a": 1})
    progress.save({"step": 3})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=re.escape(str(progress.path))):
            progress.save({"weights": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert progress.latest() == {"step": 3}
