"""Artifacts that changed after they were saved, and disks without room for them."""

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError, Version
from kedro_datasets.json import JSONDataset

from supcon_pipeline.core import atomic
from supcon_pipeline.core.checksums import checksum_path
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.artifacts import reading
from supcon_pipeline.datasets.atomic_files import use_atomic_files
from tests.datasets.kinds import RUN, VALUES, WITHOUT_CHECKSUM, catalog_entries, open_artifact

use_atomic_files()
KINDS = sorted(VALUES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind, with an artifact; only to be read."""
    folder = tmp_path_factory.mktemp("saved")
    for kind in KINDS:
        open_artifact(kind, folder / kind)[0].save(VALUES[kind]())
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Callable[[str], tuple[Any, Path]]:
    """The artifact of a kind, to be changed."""

    def make(kind: str) -> tuple[Any, Path]:
        shutil.copytree(saved / kind, tmp_path / kind)
        return open_artifact(kind, tmp_path / kind)

    return make


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "first byte flipped": lambda content: bytes([content[0] ^ 128]) + content[1:],
    "last byte flipped": lambda content: content[:-1] + bytes([content[-1] ^ 4]),
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "lengthened": lambda content: content + b"\0",
    "foreign": lambda _: b"\x89PNG\r\n\x1a\n<!doctype html>",
}


def test_every_kind_of_artifact_in_the_catalog_has_a_checksum_or_a_reason_for_none() -> None:
    assert catalog_entries().keys() == VALUES.keys() | WITHOUT_CHECKSUM


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_not_changed_is_read(saved: Path, kind: str) -> None:
    dataset, path = open_artifact(kind, saved / kind)
    assert dataset.load() is not None
    assert sorted(path.parent.iterdir()) == [path, checksum_path(path)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_changed_is_refused_in_one_line_that_names_file_and_run(
    copy: Callable[[str], tuple[Any, Path]], kind: str
) -> None:
    dataset, path = copy(kind)
    content = path.read_bytes()
    for change in DAMAGE.values():
        path.write_bytes(change(content))
        with pytest.raises(InputError) as refused:
            dataset.load()
        assert str(refused.value) == (
            f"{path.name} of run {RUN} must be as it was saved, got other content; restore {path} from a "
            f"copy, or delete it to have it made again: rm -r {path.parent}"
        )
        assert dataset.exists()
    path.write_bytes(content)
    assert dataset.load() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_kedro_viz_shows_nothing_of_what_has_changed(
    copy: Callable[[str], tuple[Any, Path]], kind: str
) -> None:
    dataset, path = copy(kind)
    if not hasattr(dataset, "preview"):
        return
    assert dataset.preview()
    path.write_bytes(flip(path.read_bytes()))
    with pytest.raises(InputError, match="must be as it was saved"):
        dataset.preview()


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_checksum_is_read_or_refused_in_one_line(
    copy: Callable[[str], tuple[Any, Path]], kind: str
) -> None:
    dataset, path = copy(kind)
    checksum_path(path).unlink()
    assert dataset.load() is not None
    content = path.read_bytes()
    for change in DAMAGE.values():
        path.write_bytes(change(content))
        try:
            dataset.load()
        except InputError as refused:
            line = str(refused)
            assert line.startswith(
                f"{path.name} of run {RUN} must be a file of its kind, got one that cannot"
            )
            assert line.isprintable()


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"0" * 32, b"0" * 32 + b"  artifact.json\n"])
def test_a_checksum_that_is_broken_itself_is_a_change(
    copy: Callable[[str], tuple[Any, Path]], content: bytes
) -> None:
    dataset, path = copy("documents.JSONDataset")
    checksum_path(path).write_bytes(content)
    with pytest.raises(InputError, match="must be as it was saved"):
        dataset.load()


@pytest.mark.skipif(shutil.which("xxh128sum") is None, reason="needs xxh128sum")
def test_the_checksums_are_those_of_xxh128sum(saved: Path) -> None:
    _, path = open_artifact("documents.JSONDataset", saved / "documents.JSONDataset")
    command = ["xxh128sum", "--check", checksum_path(path).name]
    subprocess.run(command, cwd=path.parent, check=True, capture_output=True)


def test_datasets_of_kedro_beside_them_are_read_as_ever(tmp_path: Path) -> None:
    for version in (None, Version(None, RUN)):
        dataset = JSONDataset(filepath=str(tmp_path / f"{bool(version)}.json"), version=version)
        dataset.save({"a": 1})
        assert dataset.load() == {"a": 1}
    assert not checksum_path(tmp_path / "False.json").exists()


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file of this process may be larger, which to a program looks as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_no_file_and_the_error_names_it(tmp_path: Path, kind: str) -> None:
    dataset, path = open_artifact(kind, tmp_path)
    value = VALUES[kind]()
    with file_size_limit(100), pytest.raises(DatasetError) as refused:
        dataset.save(value)
    told = refused.value.__cause__
    assert isinstance(told, OSError)
    assert told.filename == str(path)
    assert [note for note in told.__notes__ if note.startswith("needs ")]
    assert not dataset.exists()
    assert [place for place in tmp_path.rglob("*") if place.is_file()] == []
    dataset.save(value)
    assert dataset.load() is not None


@pytest.mark.parametrize("kind", ["documents.JSONDataset", "named_tensors.NamedTensorsDataset"])
def test_a_disk_that_is_full_when_all_is_written_leaves_no_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_flush_to_disk", fail)
    dataset, path = open_artifact(kind, tmp_path)
    with pytest.raises(DatasetError, match=f"No space left on device: '{path}'"):
        dataset.save(VALUES[kind]())
    assert [place for place in tmp_path.rglob("*") if place.is_file()] == []


def test_a_disk_that_is_full_while_images_are_copied_to_it_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = open_artifact("packed_images.PackedImagesDataset", tmp_path / "packed")
    images.save(VALUES["packed_images.PackedImagesDataset"]())

    def fail(*_: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", fail)
    copied, path = open_artifact("packed_images.PackedImagesDataset", tmp_path / "copied")
    with file_size_limit(100), pytest.raises(DatasetError, match=f"File too large: '{path}'"):
        copied.save(images.load())
    assert [place for place in (tmp_path / "copied").rglob("*") if place.is_file()] == []
    copied.save(images.load())
    assert (copied.load() == images.load()).all()


def test_a_file_that_is_not_there_is_not_called_broken(tmp_path: Path) -> None:
    # As libraries that are written in other languages raise it: without a number.
    with pytest.raises(FileNotFoundError, match="no such file"), reading(tmp_path / "file"):
        raise FileNotFoundError("no such file")
