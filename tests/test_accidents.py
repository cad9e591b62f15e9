import errno
import os
import re
import tempfile
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from kedro.framework.session import KedroSession
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Pipeline
from kedro_datasets.json import JSONDataset

from supcon_pipeline.accidents import explain_accident, raise_in_one_line, smaller_values
from supcon_pipeline.core.data.packing_store import PackingStore
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.parameters.data import ImagesParameters
from supcon_pipeline.pipeline_registry import register_pipelines
from supcon_pipeline.validation import parameter_models, validate_parameters
from tests.conftest import bootstrap, make_project
from tests.gpu import needs_gpu
from tests.test_validation import read_parameters

MODELS = {**parameter_models(), "images": ImagesParameters}
NODES = sum(register_pipelines().values(), Pipeline([])).nodes


def raise_error(error: BaseException) -> Any:
    raise error


def error_of(call: Any) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        call()
    return raised.value


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            errno.EACCES,
            "/d/a.npy must be open to this user, got: Permission denied; give it access, or choose",
        ),
        (
            errno.EROFS,
            "/d/a.npy must be on a disk that can be written, got: Read-only file system; start from",
        ),
        (
            errno.ENAMETOOLONG,
            "/d/a.npy must have a path that the disk takes, got: File name too long; shorten",
        ),
        (errno.ENOENT, "/d/a.npy must exist until the run has ended, got: No such file or directory; bring"),
        (errno.EIO, "/d/a.npy must be on a disk that works, got: Input/output error; check the disk"),
        (errno.EFBIG, "/d/a.npy must be within the limit on file sizes, got: File too large; type ulimit"),
        (errno.EMFILE, "open files must be within the limit, got Too many open files; type ulimit -n 65536"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_the_path(number: int, told: str) -> None:
    error = OSError(number, os.strerror(number), "/d/a.npy")
    line = explain_accident(error)
    assert line is not None
    assert line.startswith(told)
    assert "\n" not in line


def test_a_full_disk_is_told_with_the_file_and_the_room(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "deep/a.npy"))
    error.add_note("needs more than 12,345 bytes")
    assert re.fullmatch(
        rf"{tmp_path}/deep/a.npy must have room on its disk, got [\d.]+ \wB free, it needs more than 12,345 "
        "bytes; make room and start the command again",
        str(explain_accident(error)),
    )


def test_the_path_of_a_dataset_is_told_where_the_error_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = JSONDataset(filepath=str(tmp_path / "a.json"))
    full = OSError(errno.EDQUOT, "Disk quota exceeded")
    monkeypatch.setattr("json.dumps", lambda *_, **__: raise_error(full))
    monkeypatch.setattr("json.dump", lambda *_, **__: raise_error(full))
    line = explain_accident(error_of(lambda: dataset.save({"a": 1})))
    assert str(line).startswith(f"{tmp_path}/a.json must have room on its disk, got ")


def test_a_disk_that_was_full_before_the_run_is_told_with_the_folders_that_were_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [f"{tmp_path}/a", f"{tmp_path}/b"])
    monkeypatch.setattr("tempfile.tempdir", None)
    line = explain_accident(error_of(tempfile.gettempdir))
    assert line == (
        "a folder for temporary files must have room and be open to this user, "
        f"got none of '{tmp_path}/a', '{tmp_path}/b'; make room, or set TMPDIR to a folder on another disk"
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too many values to unpack"),
        KeyError("label"),
        OSError("image file is truncated"),
        OSError(errno.EBADF, "Bad file descriptor"),
        FileExistsError(errno.EEXIST, "File exists", "/d/a"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        InputError("lr must be above 0, got -1"),
    ],
)
def test_a_fault_of_the_program_and_a_refusal_are_no_accidents(error: Exception) -> None:
    assert explain_accident(error) is None


LACKS = [
    MemoryError(),
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which ..."
    ),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("error", LACKS, ids=lambda error: f"{type(error).__name__}: {error}"[:30])
def test_too_little_memory_is_one_line_with_what_to_type(error: Exception) -> None:
    line = str(explain_accident(error, "stage2.train_classifier", {"stage2.loader.batch_size": 32}))
    assert re.fullmatch(
        r"memory must be enough for stage2\.train_classifier, got too little: [^;\n]+; "
        r"add --params stage2\.loader\.batch_size=32",
        line,
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: np.empty(10**16, np.uint8),
        lambda: torch.empty(10**16, dtype=torch.uint8),
        lambda: __import__("cv2").resize(np.zeros((2, 2), np.uint8), (2**24, 2**24)),
        pytest.param(lambda: torch.empty(2**41, dtype=torch.uint8, device="cuda"), marks=needs_gpu),
    ],
    ids=["numpy", "torch", "opencv", "GPU"],
)
def test_an_array_that_no_memory_holds_is_an_accident_whichever_library_wants_it(call: Any) -> None:
    line = str(explain_accident(error_of(call)))
    assert line.startswith("memory must be enough for the run, got too little: ")
    assert line.endswith("; close other programs, or use a machine with more")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            MemoryError,
            "memory must be enough for the run, got too little: wide; close other programs, or use",
        ),
        (InputError, "wide$"),
    ],
)
def test_what_a_worker_raised_is_told_by_its_own_words(error: type[Exception], told: str) -> None:
    begin = "Caught it in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    with pytest.raises(click.ClickException, match=f"^{told}"):
        raise_in_one_line(error(f"{begin}  File a\nsome.{error.__name__}: wide\n"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "DataLoader worker (pid 12) is killed by signal: Killed. ",
            "got: DataLoader worker (pid 12) is killed",
        ),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "got: DataLoader worker (pid(s) 12, 13)"),
        ("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)", "memory"),
        ("DataLoader timed out after 600 seconds", "workers must give each batch in time, got: DataLoader"),
    ],
)
def test_a_lost_worker_is_one_line_with_fewer_workers_to_type(words: str, told: str) -> None:
    smaller = {"stage1.micro_batch_size": 4, "stage1.loader.num_workers": 2}
    line = str(explain_accident(RuntimeError(words), "stage1.pretrain_encoder", smaller))
    assert told in line
    assert line.endswith(
        "; add --params stage1.loader.num_workers=2, "
        "or --params stage1.loader.num_workers=0 for no worker at all"
    )
    assert "\n" not in line


def test_a_lost_process_of_packing_is_answered_with_the_whole_name_of_the_parameter() -> None:
    error = InputError("num_workers must leave memory for every process, got 2 and one was killed; lower it")
    error.__cause__ = BrokenProcessPool("it was terminated")
    line = str(explain_accident(error, "data_prep.pack_images", {"data_prep.num_workers": 1}))
    assert (
        "must be enough for every worker, got: one was killed; add --params data_prep.num_workers=1" in line
    )


BALANCED = ["stage1.loader.sampler=class_balanced", "stage1.loader.images_per_class=4"]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("data_prep.pack_images", ["data_prep.num_workers=3"], ["data_prep.num_workers=1"]),
        (
            "stage1.pretrain_encoder",
            ["stage1.loader.batch_size=32", "stage1.loader.num_workers=1"],
            [
                *("stage1.micro_batch_size=16", "stage1.loader.batch_size=16"),
                *("stage1.validation_batch_size=128", "stage1.loader.num_workers=0"),
            ],
        ),
        (
            # A balanced batch of six would be refused.
            "stage1.pretrain_encoder",
            [*BALANCED, "stage1.loader.batch_size=12", "stage1.loader.num_workers=0"],
            ["stage1.micro_batch_size=6", "stage1.validation_batch_size=128"],
        ),
        ("evaluation.embed_samples", ["evaluation.batch_size=1"], []),
    ],
)
def test_a_node_can_do_with_half_where_half_is_accepted(
    name: str, given: list[str], expected: list[str]
) -> None:
    given = ["stage1.validation_batch_size=256", *given]
    parameters, node = read_parameters(*given), next(node for node in NODES if node.name == name)
    catalog = DataCatalog({f"params:{group}": MemoryDataset(parameters[group]) for group in MODELS})
    assert [f"{path}={value}" for path, value in smaller_values(node, catalog).items()] == expected
    for remedy in expected:
        validate_parameters(read_parameters(*given, remedy), MODELS)


def test_an_accident_is_one_line_in_a_plain_session_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "project")
    bootstrap(project)
    monkeypatch.setattr(PackingStore, "pack", lambda *_: raise_error(MemoryError()))
    params = {"data_prep": {"num_workers": 4}}
    with (
        pytest.raises(click.ClickException) as refused,
        KedroSession.create(project, env="tiny", runtime_params=params) as session,
    ):
        session.run(pipeline_names=["data_prep"])
    line = "memory must be enough for data_prep.pack_images, got too little: MemoryError; "
    assert refused.value.message == f"{line}add --params data_prep.num_workers=2"


def test_a_refusal_of_a_dataset_is_told_once() -> None:
    error = DatasetError("Failed while loading")
    error.__cause__ = InputError("index must be new, got old")
    with pytest.raises(click.ClickException, match=r"^index must be new, got old$") as refused:
        raise_in_one_line(error)
    raise_in_one_line(refused.value)
