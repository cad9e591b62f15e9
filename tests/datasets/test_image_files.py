import pytest
from kedro.io import DatasetError

from supcon_pipeline.datasets.image_files import ImageFilesDataset
from supcon_pipeline.datasets.image_folder import ImageFolderDataset


def test_images_are_found_below_the_folder_in_order_and_hidden_ones_are_not(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "c.webp", ".hidden/3.png", "__MACOSX/4.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    raw = ImageFilesDataset(str(tmp_path)).load()
    assert list(raw.images) == [tmp_path / name for name in ("c.webp", "b/1.jpg", "b/2.PNG")]
    assert raw.ids == [str(path) for path in raw.images]
    assert raw.ignored == {".txt files": 1, "hidden": 1, "of the system or a network drive": 1}
    assert raw.source == str(tmp_path)


def test_the_images_are_those_that_a_folder_to_train_on_would_give(tmp_path):
    for name in ("cat/a.jfif", "cat/b.JPE", "cat/c.ppm", "cat/deep/d.png", "elsewhere/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "cat/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cat/loop").symlink_to(tmp_path / "cat")
    (tmp_path / "cat/gone.png").symlink_to(tmp_path / "nowhere")
    trained = ImageFolderDataset(str(tmp_path)).load()
    found = list(ImageFilesDataset(str(tmp_path / "cat")).load().images)
    assert found == [path for path, label in zip(trained.images, trained.labels, strict=True) if label == 0]
    assert [path.name for path in found] == ["a.jfif", "b.JPE", "c.ppm", "gone.png", "d.png", "e.png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "inference.path must be a folder of images, got None; add --params inference.path="),
        ("nowhere", "inference.path must be a folder of images, got '.*nowhere'"),
        (
            "set.zip",
            "inference.path must be a folder of images, got '.*set.zip', which is an archive; unpack",
        ),
        ("", r"inference.path must hold images \(.*.png.*\), got none in "),
    ],
)
def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path, path, message):
    (tmp_path / "set.zip").write_bytes(b"PK")
    path = None if path is None else str(tmp_path / path)
    with pytest.raises(DatasetError, match=message):
        ImageFilesDataset(path, "inference.path").load()
