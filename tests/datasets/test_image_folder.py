import os
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from supcon_pipeline.core.data.packing import Packing
from supcon_pipeline.core.data.packing_pool import pack_stream
from supcon_pipeline.datasets.image_files import ImageFilesDataset
from supcon_pipeline.datasets.image_folder import ImageFolderDataset


def put(path: Path, color="red", size=(4, 4), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


def load(folder: Path):
    return ImageFolderDataset(str(folder)).load()


def test_one_folder_per_class_is_taken_without_a_split(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/a.png", "cat/deep/below/c.png"):
        put(tmp_path / name)
    raw = load(tmp_path)
    assert list(raw.ids) == ["cat/deep/below/c.png", "dog/a.png", "dog/b.png"]
    assert raw.labels.tolist() == [0, 1, 1]
    assert raw.class_names == ["cat", "dog"]
    assert raw.splits is None
    assert [path.name for path in raw.images] == ["c.png", "a.png", "b.png"]
    assert raw.ignored == {}


@pytest.mark.parametrize("name", ["valid", "validation", "val", "Val"])
def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    for split in ("train", name, "test"):
        put(tmp_path / split / "cat" / "a.png")
    raw = load(tmp_path)
    assert dict(zip(raw.ids, raw.splits or (), strict=True)) == {
        "train/cat/a.png": "train", f"{name}/cat/a.png": "validation", "test/cat/a.png": "test",
    }  # fmt: skip
    assert raw.class_names == ["cat"]


def test_a_class_named_test_is_a_class_where_there_is_no_train(tmp_path: Path) -> None:
    for name in ("test", "rest"):
        put(tmp_path / name / "a.png")
    assert load(tmp_path).class_names == ["rest", "test"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("bus/a.png", "car/b.png", "train/c.png"),
            "beside train must be valid, .* test, got bus, car; rename",
        ),
        (("train/cat/a.png", "testing/cat/b.png"), "beside train must be valid, .*, got testing; rename"),
        (
            ("training/cat/a.png", "test/cat/b.png", "Val/cat/c.png"),
            "must hold the folder train beside other splits, got Val, test, training in",
        ),
        (("test/cat/a.png", "valid/cat/b.png"), "must hold the folder train .*, got test, valid in"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_not_guessed(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        put(tmp_path / name)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


def test_a_folder_without_images_beside_train_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "train/cat/a.png")
    (tmp_path / "notes/deep").mkdir(parents=True)
    (tmp_path / "notes/deep/text.md").write_text("text")
    assert load(tmp_path).ignored == {"folders beside train": 1}


def test_endings_of_any_case_spaces_and_any_script_are_taken(tmp_path: Path) -> None:
    for name in ("grün é/A b.PNG", "猫/图.JPeG", "grün é/c.TIF"):
        put(tmp_path / name)
    raw = load(tmp_path)
    assert set(raw.ids) == {"grün é/A b.PNG", "grün é/c.TIF", "猫/图.JPeG"}
    assert all(path.is_file() for path in raw.images)


def test_the_two_spellings_of_an_accent_are_one_class(tmp_path: Path) -> None:
    put(tmp_path / "train/caf\u00e9/a.png")
    put(tmp_path / "test/cafe\u0301/a.png")
    assert load(tmp_path).class_names == ["caf\u00e9"]


def test_a_name_that_is_no_text_is_taken(tmp_path: Path) -> None:
    put(tmp_path / "cat/a.png")
    os.rename(tmp_path / "cat/a.png", os.fsencode(tmp_path) + b"/cat/\xff.png")
    raw = load(tmp_path)
    assert raw.ids == ["cat/\\xff.png"]
    assert raw.images[0].is_file()


def test_what_is_not_taken_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "cat/a.png")
    for name in (
        "readme.md",
        "cat/notes.txt",
        "cat/LICENSE",
        "cat/.hidden.png",
        ".git/a.png",
        "__MACOSX/a.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "empty").mkdir()
    assert load(tmp_path).ignored == {
        ".txt files": 1, "class folders without an image (empty)": 1, "files without an ending": 1,
        "hidden": 2, "of the system or a network drive": 1, "outside the class folders": 1,
    }  # fmt: skip


def test_what_a_network_drive_keeps_beside_the_images_is_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        put(tmp_path / name)
    for name in (
        "@eaDir/cover.png/SYNOPHOTO_THUMB_M.png", "cat/@eaDir/a.png/SYNOPHOTO_THUMB_M.png",
        "#recycle/old/c.png",
        "cat/.thumbnails/a.png", "cat/.AppleDouble/a.png", "dog/.ipynb_checkpoints/b-checkpoint.png",
        "dog/._b.png", "$RECYCLE.BIN/d.png", "cat/SYNOPHOTO_THUMB_XL.jpg", "cat/Thumbs.db", "cat/.DS_Store",
        "dog/desktop.ini", "lost+found/e.png", "@Recycle/f.png", "dog/.@__thumb/b.png", ".git/g.png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        put(tmp_path / "red.png").rename(tmp_path / name)
    raw = load(tmp_path)
    assert (raw.class_names, list(raw.ids)) == (["cat", "dog"], ["cat/a.png", "dog/b.png"])
    assert raw.ignored == {"hidden": 7, "of the system or a network drive": 9}
    assert [path.name for path in ImageFilesDataset(str(tmp_path)).load().images] == ["a.png", "b.png"]


def test_a_class_without_an_image_that_is_taken_is_named(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "test/cat/c.png"):
        put(tmp_path / name)
    (tmp_path / "train/fox").mkdir()
    (tmp_path / "train/fox/a.tga").touch()
    (tmp_path / "test/dog").mkdir()
    assert load(tmp_path).ignored == {
        ".tga files": 1, "class folders without an image (test/dog, train/fox)": 2,
    }  # fmt: skip


def test_a_class_of_photographs_that_need_a_library_is_a_class(tmp_path: Path) -> None:
    for name in ("cat/a.png", "fox/IMG_1.HEIC"):
        put(tmp_path / "red.png").rename((tmp_path / name).parent.mkdir() or tmp_path / name)
    assert load(tmp_path).class_names == ["cat", "fox"]


def test_links_are_followed_and_no_loop_is_endless(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/photos/a.png")
    put(tmp_path / "images/cat/b.png")
    (tmp_path / "images/cat/more").symlink_to(tmp_path / "elsewhere/photos")
    (tmp_path / "images/cat/c.png").symlink_to(tmp_path / "images/cat/b.png")
    (tmp_path / "images/cat/loop").symlink_to(tmp_path / "images/cat")
    (tmp_path / "images/dog").symlink_to(tmp_path / "elsewhere")
    raw = load(tmp_path / "images")
    assert list(raw.ids) == ["cat/b.png", "cat/c.png", "cat/more/a.png", "dog/photos/a.png"]
    assert raw.ignored == {"links to a folder already read": 1}


def test_a_link_to_itself_is_no_folder_and_as_an_image_is_rejected_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path / "cat/a.png")
    for name in ("cat/b.png", "cat/loop", "dog"):
        (tmp_path / name).symlink_to(tmp_path / name)
    raw = load(tmp_path)
    assert list(raw.ids) == ["cat/a.png", "cat/b.png"]
    assert raw.ignored == {"files without an ending": 1, "outside the class folders": 1}
    _, reason = pack_stream(raw.images, Packing(8, 3, "pad"), 0)
    assert reason == "Too many levels of symbolic links"


def test_a_folder_that_cannot_be_read_is_rejected_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat/a.png", "cat/closed/b.png", "dog/c.png"):
        put(tmp_path / name)
    scan = os.scandir

    # Permissions mean nothing to the user that tests run as in a container.
    def refuse(folder: str | os.PathLike[str]):
        if os.fspath(folder).endswith(closed):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr("os.scandir", refuse)
    closed = "closed"
    raw = load(tmp_path)
    assert list(raw.ids) == ["cat/a.png", "cat/closed", "dog/c.png"]
    assert isinstance(list(pack_stream(raw.images, Packing(8, 3, "pad"), 0))[1], str)
    assert [path.name for path in ImageFilesDataset(str(tmp_path)).load().images] == [
        "a.png",
        "closed",
        "c.png",
    ]
    closed = tmp_path.name
    with pytest.raises(DatasetError, match=r"images.path must be readable, got .*: Permission denied"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "images.path must be given, got nothing; add --params images.path="),
        ("gone", "images.path must be a folder, got .*gone, which does not exist"),
        ("file.txt", "images.path must be a folder, got .*file.txt, which is a file; give the folder"),
        ("set.tar.GZ", "images.path must be a folder, got .*set.tar.GZ, which is an archive; unpack it"),
        ("set.csv", "images.path must be a folder, got .*set.csv, which is a table; name it as filepath"),
        (
            "empty",
            "images.path must hold images in <class>/ or train/<class>/, got none in .*empty; images",
        ),
        (
            "texts",
            r"in .*texts \(1 .txt files, 1 class folders without an image \(cat\)\); images end in",
        ),
    ],
)
def test_a_path_without_images_is_refused(tmp_path: Path, path: str | None, message: str) -> None:
    for name in ("file.txt", "set.tar.GZ", "set.csv"):
        (tmp_path / name).write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts/cat").mkdir(parents=True)
    (tmp_path / "texts/cat/a.txt").write_text("text")
    dataset = ImageFolderDataset(None if path is None else str(tmp_path / path))
    with pytest.raises(DatasetError) as error:
        dataset.load()
    with pytest.raises(ValueError, match=message):
        raise error.value.__cause__ or error.value


def test_one_file_of_each_kind_is_packed_or_rejected_with_its_reason(tmp_path: Path) -> None:
    kinds = {
        "a.jpg": {}, "b.png": {}, "c.webp": {}, "d.gif": {}, "e.bmp": {}, "f.tiff": {}, "G.JPEG": {},
        "gray.png": {"mode": "L", "color": 77}, "one bit.png": {"mode": "1", "color": 1},
        "palette.png": {"mode": "P", "color": 0}, "deep.png": {"mode": "I;16", "color": 40_000},
        "alpha.png": {"mode": "RGBA", "color": (1, 2, 3, 51)},
        "grey alpha.png": {"mode": "LA", "color": (9, 9)},
        "print.jpg": {"mode": "CMYK", "color": (0, 0, 0, 0)}, "dot.png": {"size": (1, 1)},
        "long.png": {"size": (1, 10_000)},
    }  # fmt: skip
    for name, options in kinds.items():
        put(tmp_path / "cat" / name, **options)
    rejected = {
        "bomb.png": "image must have at most", "cut.jpg": "", "nothing.png": "file must hold an image",
        "text.jpg": "file must be an image", "gone.png": "No such file", "clear.png": "transparent every",
    }  # fmt: skip
    folder = tmp_path / "dog"
    put(folder / "bomb.png", mode="1", color=1, size=(2**14, 2**13 + 1))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "noise.jpg")
    (folder / "cut.jpg").write_bytes((tmp_path / "noise.jpg").read_bytes()[:2000])
    put(folder / "clear.png", mode="RGBA", color=(1, 2, 3, 0))
    (folder / "nothing.png").touch()
    (folder / "text.jpg").write_text("no image")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    raw = load(tmp_path)
    packed = dict(zip(raw.ids, pack_stream(raw.images, Packing(8, 3, "pad"), 0), strict=True))
    reasons = {key.split("/")[1]: value for key, value in packed.items() if isinstance(value, str)}
    assert reasons.keys() == rejected.keys()
    assert all(rejected[name] in reason for name, reason in reasons.items())
    colours = {key.split("/")[1]: value[4, 4].tolist() for key, value in packed.items() if key[:3] == "cat"}
    for name in ("b.png", "d.gif", "e.bmp", "f.tiff", "dot.png", "long.png"):
        assert colours[name] == [255, 0, 0]
    for name in ("a.jpg", "c.webp", "G.JPEG"):
        assert np.abs(np.array(colours[name]) - [255, 0, 0]).max() < 12
    white = [255, 255, 255]
    assert colours["gray.png"] == [77, 77, 77]
    assert colours["one bit.png"] == colours["print.jpg"] == white
    assert colours["alpha.png"] == [204, 204, 205]  # a fifth of the colour and the rest white
    assert colours["deep.png"] == [156, 156, 156]  # 40,000 / 257
    assert colours["grey alpha.png"] == [246, 246, 246]  # 9 / 255 of 9 and the rest white


def test_the_folder_above_the_one_that_is_meant_is_refused_by_the_name_of_that(tmp_path: Path) -> None:
    for name in ("ants/train/a/1.png", "ants/train/b/1.png", "ants/test/a/2.png"):
        put(tmp_path / name)
    with pytest.raises(
        DatasetError,
        match=r"must hold train or folders of classes, got .*; did you mean .*/ants\?",
    ):
        load(tmp_path)
    assert load(tmp_path / "ants").class_names == ["a", "b"]
