import os
from pathlib import Path

import pytest
import xxhash

from supcon_pipeline.core import checksums
from supcon_pipeline.core.atomic import atomic_path, set_aside
from supcon_pipeline.core.checksums import (
    checksum_of,
    checksum_path,
    is_proven,
    is_unchanged,
    read_checksums,
)


def write(path: Path, content: bytes) -> None:
    with atomic_path(path, checksum_of) as temporary:
        temporary.write_bytes(content)


@pytest.mark.parametrize("size", [0, 1, 4 * 2**20, 4 * 2**20 + 1])
def test_a_checksum_is_that_of_the_whole_content(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert checksum_of(path) == xxhash.xxh3_128_hexdigest(path.read_bytes())


def test_a_file_without_a_checksum_is_unchanged_but_not_proven(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert is_unchanged(path)
    assert not is_proven(path)
    write(path, b"content")
    assert is_proven(path)
    assert not is_proven(tmp_path / "nowhere")


def test_a_file_that_is_replaced_is_proven_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second", b"third"):
        write(path, content)
    assert read_checksums(path) == [xxhash.xxh3_128_hexdigest(text) for text in (b"third", b"second")]
    # A process that was killed before it replaced the file.
    path.write_bytes(b"second")
    assert is_proven(path)
    path.write_bytes(b"first")
    assert not is_proven(path)


def test_a_file_that_is_replaced_while_it_is_compared_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write(path, b"first")
    monkeypatch.setattr(checksums, "checksum_of", lambda place: write(path, b"second") or checksum_of(place))
    assert is_unchanged(path)


def test_a_file_is_read_once_in_a_process_until_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "file", list[Path]()
    write(path, b"content")
    monkeypatch.setattr(checksums, "checksum_of", lambda place: read.append(place) or checksum_of(place))
    # Two changes within a tick of the clock have the same time.
    for _ in range(2):
        assert is_unchanged(path)
    assert read == [path, path]
    os.utime(path, (1, 1))
    for _ in range(2):
        assert is_unchanged(path)
    assert read == [path] * 3
    path.write_bytes(b"comtent")
    assert not is_unchanged(path)


def test_what_is_set_aside_loses_its_checksum_and_replaces_what_was_set_aside_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write(path, content)
        assert set_aside(path).read_bytes() == content
    assert [place.name for place in tmp_path.iterdir()] == ["file.broken"]
    assert not checksum_path(path).exists()
