"""The environment `images`: a folder of one's own."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import make_project, read_catalog, run_session

SMALL = {"image_size": 8, "num_workers": 0}


@pytest.fixture
def project_with_images(tmp_path: Path) -> Path:
    """A project, and beside it images of two classes, twelve of each."""
    rng = np.random.default_rng(0)
    for class_name in ("cat", "dog"):
        folder = tmp_path / "images" / class_name
        folder.mkdir(parents=True)
        for index in range(12):
            image = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"{index}.png")
    return make_project(tmp_path / "project", ())


def prepare(project: Path, **data_prep: Any) -> Any:
    params = {"images": {"path": str(project.parent / "images")}, "data_prep": {**SMALL, **data_prep}}
    run_session(project, env="images", pipeline_names=["data_prep"], runtime_params=params)
    return read_catalog(project, "images")


def read_rejected(project: Path) -> pd.DataFrame:
    (path,) = project.glob("data/02_intermediate/images/rejected_images.csv/*/rejected_images.csv")
    return pd.read_csv(path)


def test_a_folder_is_prepared_with_the_path_on_the_command_line(project_with_images: Path) -> None:
    catalog = prepare(project_with_images)
    card, samples = catalog.load("dataset_card"), catalog.load("samples")
    assert card["class_names"] == ["cat", "dog"]
    assert card["num_images"] == len(samples) == len(catalog.load("prepared_images")) == 24
    assert (card["num_rejected"], card["ignored"], card["warnings"]) == (0, {}, [])
    assert card["source"] == str(project_with_images.parent / "images")
    assert samples["split"].value_counts().to_dict() == {"train": 16, "validation": 4, "test": 4}


def test_an_image_that_cannot_be_decoded_stops_the_run_after_it_was_listed(project_with_images: Path) -> None:
    folder = project_with_images.parent / "images"
    (folder / "cat/0.png").write_text("no image")
    (folder / "dog/zero.png").touch()
    with pytest.raises(
        click.ClickException, match=r"at most 0, got 2: cat/0.png \(file must be an image.*dog/zero.png"
    ):
        prepare(project_with_images)
    rejected = read_rejected(project_with_images)
    assert rejected[["id", "class_name"]].to_numpy().tolist() == [
        ["cat/0.png", "cat"],
        ["dog/zero.png", "dog"],
    ]


def test_the_run_goes_on_without_it_where_that_is_allowed(
    project_with_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project_with_images.parent / "images/cat/0.png").write_text("no image")
    catalog = prepare(project_with_images, max_rejected=1)
    card, samples = catalog.load("dataset_card"), catalog.load("samples")
    assert card["num_rejected"] == 1
    assert card["warnings"] == ["1 images could not be decoded; rejected_images says why"]
    assert f"WARNING {card['warnings'][0]}" in " ".join(capsys.readouterr().out.split())
    assert "cat/0.png" not in set(samples["id"])
    images = catalog.load("prepared_images")
    assert len(images) == len(samples) == 23


def test_pixels_and_samples_stay_in_step_around_a_rejected_image(project_with_images: Path) -> None:
    before = prepare(project_with_images)
    whole = dict(zip(before.load("samples")["id"], np.array(before.load("prepared_images")), strict=True))
    (project_with_images.parent / "images/cat/0.png").write_text("no image")
    after = prepare(project_with_images, max_rejected=1)
    for name, image in zip(after.load("samples")["id"], after.load("prepared_images"), strict=True):
        assert np.array_equal(image, whole[name])


def test_an_image_of_train_that_is_in_test_too_is_refused_or_removed(project_with_images: Path) -> None:
    folder = project_with_images.parent / "images"
    for split in ("train", "test"):
        (folder / split).mkdir()
    for class_name in ("cat", "dog"):
        (folder / class_name).rename(folder / "train" / class_name)
        (folder / "test" / class_name).mkdir()
        for index in (0, 1):
            path = folder / "train" / class_name / f"{index}.png"
            path.rename(folder / "test" / class_name / f"{index}.png")
    (folder / "train/cat/copy.png").write_bytes((folder / "test/cat/0.png").read_bytes())
    found = r"got 1 that are: train/cat/copy.png \(as test/cat/0.png\); .*on_leakage"
    with pytest.raises(click.ClickException, match=found):
        prepare(project_with_images)
    catalog = prepare(project_with_images, on_leakage="remove")
    samples = catalog.load("samples").set_index("id")["split"]
    assert samples["train/cat/copy.png"] == "removed"
    assert catalog.load("dataset_card")["warnings"] == [
        "1 images removed from train or validation: train/cat/copy.png"
    ]


def test_copies_of_an_image_in_a_folder_without_splits_are_held_out_together(
    project_with_images: Path,
) -> None:
    folder = project_with_images.parent / "images"
    for path in sorted(folder.glob("*/*.png")):
        path.with_stem(f"{path.stem} copy").write_bytes(path.read_bytes())
    samples = prepare(project_with_images).load("samples")
    assert set(samples["split"]) == {"train", "validation", "test"}
    assert len(samples.drop_duplicates(["pixel_hash", "split"])) == samples["pixel_hash"].nunique()


def test_few_images_are_trained_on_evaluated_drawn_and_searched_with_the_parameters_as_they_are(
    project_with_images: Path,
) -> None:
    folder = project_with_images.parent / "images"
    for path in folder.glob("*/*.png"):
        if int(path.stem) > 3:
            path.unlink()
    # What `auto` comes to depends on the machine, and eight rows in bfloat16 may be one and the same.
    stage = {
        "loader": {"num_workers": 0},
        "schedule": {"num_epochs": 1, "warmup_epochs": 0},
        "precision": "float32",
    }
    params = {
        "images": {"path": str(folder)},
        "data_prep": SMALL,
        "stage1": {**stage, "backbone": {"name": "resnet_narrow", "stem": "small_image"}},
        "stage2": stage,
        "inference": {"path": str(folder)},
        "out_of_distribution": {"path": str(folder)},
    }
    for names in (["__default__"], ["inference", "out_of_distribution"]):
        run_session(project_with_images, env="images_scratch", pipeline_names=names, runtime_params=params)
    catalog = read_catalog(project_with_images, "images_scratch")
    assert catalog.load("samples")["split"].value_counts().to_dict() == {
        "train": 4,
        "validation": 2,
        "test": 2,
    }
    assert catalog.load("neighbours").groupby("query").size().tolist() == [4, 4]
    features = catalog.load("feature_metrics")["embedding"]
    assert [name for name in features if name.startswith("knn_accuracy_at_")] == ["knn_accuracy_at_1"]
    assert len(catalog.load("tsne_points")) == 2 * 8
    assert len(catalog.load("inference_table")) == 8
    assert len(catalog.load("outside_scores")) == 2 + 8


def write_path(project: Path, path: str) -> None:
    file = project / "conf/images/parameters.yml"
    text = file.read_text()
    assert "path: null" in text
    file.write_text(text.replace("path: null", f"path: {path}"))


@pytest.mark.parametrize("name", ["~/plain", "~/Fotos, Bäume & (1) [neu] $x", "~/it's"])
def test_a_path_in_the_parameters_is_kept_whatever_it_is_called(
    project_with_images: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = project_with_images.parent
    monkeypatch.setenv("HOME", str(home))
    (home / "images").rename(home / name[2:])
    write_path(project_with_images, f'"{name}"')
    arguments = {"env": "images", "pipeline_names": ["data_prep"]}
    run_session(project_with_images, runtime_params={"data_prep": SMALL}, **arguments)
    card = read_catalog(project_with_images, "images").load("dataset_card")
    assert (card["num_images"], card["source"]) == (24, str(home / name[2:]))


def test_a_path_of_the_command_line_goes_before_that_in_the_parameters(project_with_images: Path) -> None:
    write_path(project_with_images, "/gone")
    assert prepare(project_with_images).load("dataset_card")["num_images"] == 24


def test_rows_stay_with_their_pixels_where_the_folder_changes_between_two_nodes(
    project_with_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project_with_images.parent / "images"
    before = prepare(project_with_images).load("samples").set_index("id")["pixel_hash"]
    params = {"images": {"path": str(folder)}, "data_prep": SMALL}
    monkeypatch.setenv("SUPCON_RUN_ID", "9-again")
    arguments = {"env": "images", "runtime_params": params}
    run_session(project_with_images, node_names=["data_prep.pack_images"], **arguments)
    # As many as before, and all but the last are another one.
    (folder / "cat/0.png").rename(folder / "dog/z.png")
    (folder / "dog/9.png").write_text("no image")
    run_session(project_with_images, pipeline_names=["data_prep"], only_missing_outputs=True, **arguments)
    after = read_catalog(project_with_images, "images")
    assert after.load("samples").set_index("id")["pixel_hash"].equals(before)
    assert after.load("dataset_card")["source"] == str(folder)


@pytest.mark.parametrize(
    ("env", "params", "message"),
    [
        ("images", {}, "images.path must be given, got nothing; add --params images.path="),
        (
            "images",
            {"images": {"path": "gone"}},
            "images.path must be a folder, got .*gone, which does not exist",
        ),
        (
            "images",
            {"images": {"pth": "x"}},
            "images.pth must be a known .*did you mean 'images.path'",
        ),
        ("base", {"images": {"path": "x"}}, "got experiment base; add --env images"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_line(
    tmp_path: Path, env: str, params: dict[str, Any], message: str
) -> None:
    project = make_project(tmp_path / "project", ())
    with pytest.raises(click.ClickException, match=message):
        run_session(project, env=env, pipeline_names=["data_prep"], runtime_params=params)


def test_encoded_photographs_keep_every_promise_of_data_prep_and_are_trained_on(
    project_with_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project_with_images.parent / "images"
    Image.new("RGB", (90, 30), "red").save(folder / "dog/wide.jpg")
    (folder / "cat/0.png").write_text("no image")
    (folder / "cat/notes.txt").touch()
    (folder / "dog/again.png").write_bytes((folder / "dog/1.png").read_bytes())
    stage1 = {
        "backbone": {"name": "resnet_narrow", "stem": "small_image", "pretrained": False},
        "schedule": {"num_epochs": 1, "warmup_epochs": 0},
        "loader": {"batch_size": 8, "num_workers": 1},
        **{"view_size": 8, "view_sizes": [], "finetune": None, "embedding_dim": None},
    }
    params = {
        "images": {"path": str(folder)},
        "data_prep": {"image_size": 16, "num_workers": 1, "storage": "encoded", "max_rejected": 1},
        "stage1": stage1,
    }
    for pipelines in (["data_prep"], ["data_prep", "stage1", "stage1_swa"]):
        run_session(project_with_images, "images", pipeline_names=pipelines, runtime_params=params)
    assert "These images have not changed since they were packed" in " ".join(capsys.readouterr().out.split())
    catalog = read_catalog(project_with_images, "images")
    card, images, samples = (catalog.load(name) for name in ("dataset_card", "prepared_images", "samples"))
    assert (card["storage"], card["image_shape"]) == ("encoded", [16, 16, 3])
    assert (card["num_images"], card["num_rejected"], card["ignored"]) == (25, 1, {".txt files": 1})
    assert (len(images), images[:].shape) == (25, (25, 16, 16, 3))
    rows = samples.set_index("id")["duplicate_group"]
    assert rows["dog/again.png"] == rows["dog/1.png"]
    wide = np.flatnonzero(samples["id"] == "dog/wide.jpg")
    assert [image.shape for image in images.whole(wide)] == [(16, 48, 3)]
    metadata = catalog.load("encoder").metadata
    assert (metadata["storage"], metadata["data_hash"]) == ("encoded", card["data_hash"])
