"""Artifacts in an object store, for which fsspec's file system in memory stands in."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from kedro.io import DataCatalog, DatasetError, Version

from supcon_pipeline.core.checksums import checksum_of
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.datasets.atomic_files import use_atomic_files
from supcon_pipeline.datasets.named_tensors import NamedTensorsDataset
from supcon_pipeline.datasets.object_store import ObjectStore
from supcon_pipeline.datasets.packed_images import PackedImagesDataset
from supcon_pipeline.datasets.run_record import RunRecordDataset
from supcon_pipeline.datasets.stores import open_store
from supcon_pipeline.datasets.tables import CSVDataset, ParquetDataset
from supcon_pipeline.datasets.tensorboard import TensorBoardDataset
from supcon_pipeline.datasets.versioned_path import VersionedFolderDataset
from tests.datasets.kinds import RUN, VALUES, catalog_entries, packed, table, tensors
from tests.datasets.test_artifacts import flip

use_atomic_files()
VERSION = Version(None, RUN)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Copies in a folder of each test, and what makes this another machine, without any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: shutil.rmtree(tmp_path / "cache")


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """The path of a bucket that no other test has."""
    return f"/{tmp_path.name}"


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are fetched from now on."""
    names: list[str] = []

    def get_file(self: Any, place: str, *arguments: Any, **named: Any) -> None:
        names.append(Path(place).name)
        super(MemoryFileSystem, self).get_file(place, *arguments, **named)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file, raising=False)
    return names


def memory() -> Any:
    return fsspec.filesystem("memory")


class FolderDataset(VersionedFolderDataset):
    """A folder with a file for each name."""

    def write(self, data: dict[str, str], folder: Path) -> None:
        for name, text in data.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    def load(self) -> None:
        raise DatasetError("must be read by something else")


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_every_kind_of_artifact_comes_back_elsewhere_and_a_flipped_byte_is_refused_by_name(
    bucket: str, kind: str, elsewhere: Callable[[], None]
) -> None:
    entry = catalog_entries()[kind]
    name = f"artifact{Path(entry['filepath']).suffix}"
    artifact = {"artifact": {**entry, "filepath": f"memory://{bucket}/{name}"}}
    dataset: Any = DataCatalog.from_config(artifact, {}, {"artifact": RUN}, RUN).get("artifact")
    assert not dataset.exists()
    dataset.save(VALUES[kind]())
    elsewhere()
    place = f"{bucket}/{name}/{RUN}/{name}"
    assert dataset.exists()
    assert dataset.load() is not None
    assert dataset.list_versions(full_path=False) == [RUN]
    assert sorted(memory().find(bucket)) == [place, f"{place}.xxh128"]

    memory().pipe_file(place, flip(memory().cat_file(place)))
    line = f"{name} of run {RUN} must be as it was saved, got other content; restore memory://"
    for _ in range(2):
        with pytest.raises(InputError, match=f"^{line}"):
            dataset.load()
        elsewhere()


def test_the_remedy_for_a_changed_artifact_works_as_it_stands(bucket: str) -> None:
    dataset = NamedTensorsDataset(f"memory://{bucket}/a.safetensors", VERSION)
    dataset.save(tensors())
    place = f"{bucket}/a.safetensors/{RUN}/a.safetensors"
    memory().pipe_file(place, b"")
    with pytest.raises(InputError) as refused:
        dataset.load()
    code = str(refused.value).partition("python -c ")[2].strip("'").replace("'\"'\"'", "'")
    exec(code, {})
    assert not dataset.exists()
    dataset.save(tensors())
    assert dataset.load().metadata == {"epoch": 1}


def test_the_checksum_is_that_of_the_file(bucket: str, tmp_path: Path) -> None:
    for place in (str(tmp_path), f"memory://{bucket}"):
        NamedTensorsDataset(f"{place}/a.safetensors", VERSION).save(tensors())
    local = tmp_path / f"a.safetensors/{RUN}/a.safetensors"
    line = f"{checksum_of(local)}  a.safetensors\n"
    assert memory().cat_file(f"{bucket}/a.safetensors/{RUN}/a.safetensors.xxh128").decode() == line


def test_images_are_fetched_once_and_mapped_and_a_damaged_copy_is_fetched_again(
    bucket: str, elsewhere: Callable[[], None], fetched: list[str], tmp_path: Path
) -> None:
    dataset = PackedImagesDataset(f"memory://{bucket}/images.npy", VERSION)
    dataset.save(packed())
    dataset.load()
    assert fetched == []
    elsewhere()
    for _ in range(3):
        images = dataset.load()
        assert isinstance(images, np.memmap)
        assert np.array_equal(images, packed())
    assert fetched == ["images.npy"]
    assert Path(images.filename).is_relative_to(tmp_path / "cache/supcon_pipeline/artifacts/memory")
    Path(images.filename).write_bytes(b"damaged")
    assert np.array_equal(dataset.load(), packed())
    assert fetched == ["images.npy", "images.npy"]


def test_what_was_put_without_a_checksum_is_read(bucket: str, elsewhere: Callable[[], None]) -> None:
    dataset = NamedTensorsDataset(f"memory://{bucket}/a.safetensors", VERSION)
    dataset.save(tensors())
    elsewhere()
    memory().rm(f"{bucket}/a.safetensors/{RUN}/a.safetensors.xxh128")
    assert dataset.load().metadata == dataset.load().metadata == {"epoch": 1}


def test_text_that_is_no_formula_comes_back_unchanged(bucket: str, elsewhere: Callable[[], None]) -> None:
    dataset = CSVDataset(filepath=f"memory://{bucket}/a.csv", version=VERSION, save_args={"index": False})
    text = pd.DataFrame({"id": ["=1+1", "'=1+1", "''=1", "a"]})
    dataset.save(text)
    elsewhere()
    pd.testing.assert_frame_equal(dataset.load(), text)


def test_kedro_viz_sees_the_first_rows(bucket: str, elsewhere: Callable[[], None]) -> None:
    for kind, ending in ((CSVDataset, "csv"), (ParquetDataset, "parquet")):
        dataset = kind(filepath=f"memory://{bucket}/a.{ending}", version=VERSION)
        dataset.save(table())
        elsewhere()
        assert len(dataset.preview(nrows=2)["data"]) == 2


def test_a_folder_counts_once_all_of_its_files_are_there(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, put = FolderDataset(f"memory://{bucket}/folder", VERSION), MemoryFileSystem.put_file

    def put_some(self: Any, file: str, place: str, **named: Any) -> None:
        if place.endswith("second"):
            raise ConnectionError("the network is gone")
        put(self, file, place, **named)

    files = {"first": "1", "inner/second": "2"}
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", put_some)
        with pytest.raises(InputError, match=r"^memory://.*/folder must be .*, got: the network is gone; "):
            dataset.save(files)
    place = f"{bucket}/folder/{RUN}/folder"
    assert memory().find(bucket) == [f"{place}/first"]
    assert not dataset.exists()
    dataset.save(files)
    assert dataset.exists()
    assert memory().cat_file(f"{place}/inner/second") == b"2"
    marker = memory().cat_file(f"{place}.xxh128").decode().splitlines()
    assert [line.partition("  ")[2] for line in marker] == ["folder/first", "folder/inner/second"]
    with pytest.raises(DatasetError, match="must not exist if versioning is enabled"):
        dataset.save(files)


def test_curves_are_written_here_and_put_there_when_their_node_has_run(bucket: str) -> None:
    dataset = TensorBoardDataset(f"memory://{bucket}/events", VERSION)
    with dataset.load() as log:
        log.add_scalar("a", 1.0, 0)
        [file] = dataset.folder_of(RUN).iterdir()
    assert not dataset.exists()
    dataset.publish()
    assert dataset.exists()
    folder = f"{bucket}/events/{RUN}"
    assert memory().cat_file(f"{folder}/{file.name}") == file.read_bytes()
    assert f"{folder}/events.xxh128" in memory().find(folder)


@pytest.mark.parametrize("kind", ["documents.JSONDataset", "named_tensors.NamedTensorsDataset"])
@pytest.mark.parametrize("error", [PermissionError(13, "Access Denied"), FileNotFoundError("no such bucket")])
def test_a_put_that_fails_is_one_line_and_nothing_counts_as_saved(
    bucket: str, kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = {"artifact": {**catalog_entries()[kind], "filepath": f"memory://{bucket}/artifact"}}
    dataset: Any = DataCatalog.from_config(artifact, {}, {"artifact": RUN}, RUN).get("artifact")

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", refuse)
        with pytest.raises(InputError) as refused:
            dataset.save(VALUES[kind]())
    assert str(refused.value) == (
        f"memory:/{bucket}/artifact/{RUN}/artifact must be open to this user, got: {error}; check its "
        "address and your credentials and network, and start the command again; a run goes on under its "
        "SUPCON_RUN_ID"
    )
    assert not dataset.exists()
    dataset.save(VALUES[kind]())
    assert dataset.load() is not None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("the network is gone"), "the network is gone"),
        # As gcsfs says that there is no such bucket.
        (FileNotFoundError("b/bucket/o"), "no b/bucket/o"),
    ],
)
def test_a_fetch_that_fails_leaves_no_copy(
    error: OSError,
    words: str,
    bucket: str,
    elsewhere: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    dataset = PackedImagesDataset(f"memory://{bucket}/images.npy", VERSION)
    dataset.save(packed())
    elsewhere()

    def get_half(_: Any, __: str, file: str, **___: Any) -> None:
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_half, raising=False)
    with pytest.raises(InputError, match=rf"images\.npy must be open to this user, got: {words}; "):
        dataset.load()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_one_of_two_processes_creates_a_record_and_each_adds_its_sessions(
    bucket: str, elsewhere: Callable[[], None]
) -> None:
    first, second = (RunRecordDataset(filepath=f"memory://{bucket}/r.json", version=VERSION) for _ in "ab")
    assert first.create({"run_id": RUN, "number": 1})
    elsewhere()
    assert not second.create({"run_id": RUN, "number": 2})
    task: Any = {"outcome": "completed", "started": "1", "ended": "2", "parameters": {}, "nodes": {}}
    first.save_task({**task, "task": "a", "outcome": "failed"})
    second.save_task({**task, "task": "b"})
    assert [entry["outcome"] for entry in second.load()["tasks"]] == ["failed", "completed"]
    first.save_task({**task, "task": "a"})
    record = second.load()
    assert (record["number"], [entry["outcome"] for entry in record["tasks"]]) == (1, ["completed"] * 2)
    assert second.list_versions(full_path=False) == [RUN]
    memory().pipe_file(f"{bucket}/r.json/{RUN}/r.json", b"{}")
    with pytest.raises(InputError, match=f"or delete the run: kedro runs delete {RUN}$"):
        second.head()


def test_other_addresses_and_absent_libraries_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"filepath must be a path or the address of an object .*, got"):
        NamedTensorsDataset("sftp://host/a.safetensors")

    def fail(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    for protocol, remedy in (("s3", r"'supcon_pipeline\[s3\]'"), ("gs", "gcsfs")):
        for kind in (NamedTensorsDataset, CSVDataset, TensorBoardDataset):
            with pytest.raises(
                InputError, match=f"^the library for {protocol}:.*; type pip install {remedy}$"
            ):
                kind(filepath=f"{protocol}://bucket/a")


def test_a_full_disk_while_fetching_is_told_of_the_copy(
    bucket: str, elsewhere: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = open_store(f"memory://{bucket}/a")
    assert isinstance(store, ObjectStore)
    store.write(path, b"content")
    elsewhere()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail, raising=False)
    with pytest.raises(OSError, match="No space left on device") as refused, store.reading(path):
        pass
    assert refused.value.filename == str(store.copy_of(path))


def test_a_folder_of_a_store_has_a_size_and_is_removed_with_its_copies(bucket: str) -> None:
    dataset = NamedTensorsDataset(f"memory://{bucket}/a.safetensors", VERSION)
    dataset.save(tensors())
    store, folder = open_store(f"memory://{bucket}/a.safetensors/{RUN}")
    assert store.size_of(folder) == sum(memory().size(path) for path in memory().find(bucket))
    assert store.is_folder(folder)
    assert store.copy_of(folder).is_dir()
    for _ in range(2):
        store.remove(folder)
        assert (store.size_of(folder), store.is_folder(folder)) == (0, False)
    assert not store.copy_of(folder).exists()
