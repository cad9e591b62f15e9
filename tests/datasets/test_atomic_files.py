import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from kedro.io import Version
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import ParquetDataset

from supcon_pipeline.core.atomic import atomic_path
from supcon_pipeline.datasets.atomic_files import use_atomic_files
from supcon_pipeline.datasets.packed_images import PackedImagesDataset

use_atomic_files()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_finished_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    for text in ("old", "new"):
        with atomic_path(target) as temporary:
            temporary.write_text(text)
    assert target.read_text() == "new"
    assert files(tmp_path) == ["file"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert target.read_text() == "old"
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_an_exception_while_fsspec_writes_leaves_nothing(tmp_path: Path, mode: str) -> None:
    def write_half() -> None:
        with fsspec.filesystem("file").open(str(tmp_path / "file"), mode) as file:
            file.write("half" if mode == "w" else b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert files(tmp_path) == []


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    version = Version(None, "1")
    JSONDataset(filepath=str(tmp_path / "a.json"), version=version).save({"ä": 1})
    assert JSONDataset(filepath=str(tmp_path / "a.json"), version=version).load() == {"ä": 1}
    table = pd.DataFrame({"a": [1, 2]})
    ParquetDataset(filepath=str(tmp_path / "t.parquet"), version=version).save(table)
    pd.testing.assert_frame_equal(
        ParquetDataset(filepath=str(tmp_path / "t.parquet"), version=version).load(), table
    )


def test_json_that_cannot_be_written_leaves_no_version(tmp_path: Path) -> None:
    from kedro.io import DatasetError

    dataset = JSONDataset(filepath=str(tmp_path / "a.json"), version=Version(None, "1"))
    with pytest.raises(DatasetError, match="not JSON serializable"):
        dataset.save({"fine": 1, "not": object()})
    assert not dataset.exists()
    assert files(tmp_path) == []


KILLED_HALF_WAY = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from kedro.io import Version
    from supcon_pipeline.datasets.atomic_files import use_atomic_files

    use_atomic_files()
    kind, folder = sys.argv[1:]
    version = Version(None, "2")

    class KillingDict(dict):
        def items(self):
            yield "first", "x" * 100_000
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "json":
        from kedro_datasets.json import JSONDataset
        JSONDataset(filepath=f"{folder}/a.json", version=version).save(KillingDict(a=1))
    else:
        from supcon_pipeline.datasets import packed_images
        def save_half(file, data, **_):
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        packed_images.np.save = save_half
        images = np.zeros((1, 2, 2, 3), np.uint8)
        packed_images.PackedImagesDataset(f"{folder}/a.npy", version).save(images)
"""


@pytest.mark.parametrize("kind", ["json", "npy"])
def test_a_save_that_is_killed_half_way_leaves_nothing_that_a_load_sees(tmp_path: Path, kind: str) -> None:
    path, whole = str(tmp_path / f"a.{kind}"), Version(None, "1")
    if kind == "json":
        JSONDataset(filepath=path, version=whole).save({"a": 1})
    else:
        PackedImagesDataset(path, whole).save(np.ones((1, 2, 2, 3), np.uint8))
    script = [sys.executable, "-c", textwrap.dedent(KILLED_HALF_WAY), kind, str(tmp_path)]
    killed = subprocess.run(script, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The kill did come in the middle of a file: it left one under another name.
    assert [name for name in files(tmp_path) if name.endswith(".tmp")]
    newest = Version(None, None)
    if kind == "json":
        dataset = JSONDataset(filepath=path, version=newest)
        assert dataset.load() == {"a": 1}
    else:
        dataset = PackedImagesDataset(path, newest)
        assert dataset.load().sum() == 12
    assert dataset.resolve_load_version() == "1"
    assert json.dumps(dataset.list_versions(full_path=False)) == '["1"]'
    assert os.path.isdir(path)
