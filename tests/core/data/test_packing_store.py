import os
from pathlib import Path

import numpy as np
import pytest
from tests.core.data.packings import PACKING

from supcon_pipeline.core.data import packing as packing_module
from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_store import PackingStore, identify_packing, write_packed


def test_a_file_written_as_a_stream_is_what_numpy_writes(tmp_path: Path, rng):
    images = rng.integers(0, 256, (1200, 2, 2, 3), dtype=np.uint8)
    stream = [*images[:700], "broken", *images[700:], "gone"]
    with (tmp_path / "stream.npy").open("wb") as file:
        assert write_packed(file, stream, (2, 2, 3)) == [(700, "broken"), (1201, "gone")]
    np.save(tmp_path / "whole.npy", images)
    assert (tmp_path / "stream.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_nothing_but_rejected_images_is_an_empty_file_that_can_be_read(tmp_path: Path):
    images, rejected = PackingStore(tmp_path).pack([tmp_path / "gone.png"] * 2, PACKING, 0)
    assert images.shape == (0, 8, 8, 3)
    assert rejected == [(0, "No such file or directory"), (1, "No such file or directory")]


def test_the_same_images_are_not_packed_again(items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given, expected = items
    store = PackingStore(tmp_path / "packing")
    first, rejected = store.pack(given, PACKING, 0)
    assert np.array_equal(first, expected)
    packed, pack = [], Packing.pack
    monkeypatch.setattr(Packing, "pack", lambda self, item: packed.append(item) or pack(self, item))
    again, rejected_again = store.pack(given, PACKING, 0)
    assert np.array_equal(again, first)
    assert rejected_again == rejected
    assert [position for position, _ in rejected] == [3, 4]
    # Those that were rejected were tried again, and nothing else.
    assert packed == given[3:5]


def test_what_was_rejected_for_a_passing_reason_is_packed_when_it_has_passed(
    items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given, expected = items
    store, decode = PackingStore(tmp_path / "packing"), packing_module.decode_image

    def fail(file, *options):
        if file == given[2]:
            raise OSError(5, "Input/output error")
        return decode(file, *options)

    with monkeypatch.context() as patch:
        patch.setattr(packing_module, "decode_image", fail)
        images, rejected = store.pack(given, PACKING, 0)
    assert np.array_equal(images, expected[[0, 1, 3]])
    assert rejected[0] == (2, "Input/output error")
    images, rejected = store.pack(given, PACKING, 0)
    assert np.array_equal(images, expected)
    assert [position for position, _ in rejected] == [3, 4]


def age(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (0, 0))


def test_the_packing_of_a_run_beside_this_one_stays_and_one_of_days_ago_goes(items, tmp_path: Path):
    given, expected = items
    store = PackingStore(tmp_path / "packing")
    store.pack(given, PACKING, 0)
    # What a killed process has left.
    (store.folder / ".some.npy.1.tmp").touch()
    age(store.folder)
    used, _ = store.pack(given, PACKING, 0)
    store.pack(given, Packing(9, 3, "pad"), 0)
    suffixes = [".json", ".npy", ".xxh128", ".xxh128"]
    assert sorted(path.suffix for path in store.folder.iterdir()) == sorted(2 * suffixes)
    assert np.array_equal(np.load(used.filename), expected)
    age(store.folder)
    store.pack(given, Packing(10, 3, "pad"), 0)
    assert sorted(path.suffix for path in store.folder.iterdir()) == suffixes


def test_a_packing_is_known_by_files_pixels_order_and_settings(items):
    given, _ = items
    changed = given[0].copy()
    changed[0, 0, 0] ^= 1
    names = [
        identify_packing(given, PACKING),
        identify_packing([changed, *given[1:]], PACKING),
        identify_packing(given[::-1], PACKING),
        identify_packing(given[:-1], PACKING),
        identify_packing(given, Packing(8, 1, "pad")),
        identify_packing(given, Packing(8, 3, "crop")),
    ]
    os.utime(given[2], ns=(1, 1))
    names.append(identify_packing(given, PACKING))
    assert len(set(names)) == len(names)


def test_a_killed_packing_leaves_nothing_that_is_taken_for_one(tmp_path: Path):
    class Killing(list):
        def __getitem__(self, index):
            # Identified once, killed while it is packed.
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked > 3:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    store = PackingStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.pack(Killing([np.zeros((1, 1), np.uint8)] * 2), PACKING, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "foreign"])
def test_a_broken_packing_is_set_aside_and_the_images_are_packed_again(
    items, tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, damage: str
):
    given, expected = items
    store = PackingStore(tmp_path / "packing")
    store.pack(given, PACKING, 0)
    (path,) = store.folder.glob(f"*{suffix}")
    content = path.read_bytes()
    middle = len(content) // 2
    broken = {
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[:middle],
        "emptied": b"",
        "foreign": b"\x89PNG\r\n\x1a\n",
    }[damage]
    path.write_bytes(broken)
    images, rejected = store.pack(given, PACKING, 0)
    assert np.array_equal(images, expected)
    assert [position for position, _ in rejected] == [3, 4]
    assert caplog.messages == [
        f"{path} is not as it was written, so the images are packed again; the file is now {path.name}.broken"
    ]
    assert path.with_name(f"{path.name}.broken").read_bytes() == broken
