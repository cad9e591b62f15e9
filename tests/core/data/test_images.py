from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from supcon_pipeline.core.data.images import (
    LabelledEmbeddings,
    LabelledImages,
    RawImages,
    rows_of,
    spread_evenly,
)
from supcon_pipeline.core.data.pixels import (
    channel_statistics,
    content_hash,
    pack_image,
    pixel_hashes,
    read_chunks,
    shrink_images,
)
from supcon_pipeline.core.named_tensors import NamedTensors


def raw_images(num_images=2, labels=(0, 1), ids=("a", "b"), splits=None):
    images = [np.zeros((4, 4), np.uint8)] * num_images
    return RawImages(images, np.array(labels), ["cat", "dog"], list(ids), "made up", splits)


def test_images_of_different_sizes_are_taken_as_they_are():
    images = [np.zeros((4, 6), np.uint8), np.zeros((9, 3, 3), np.uint8)]
    raw = RawImages(images, np.array([1, 0]), ["cat", "dog"], ["a", "b"], "made up")
    assert [image.shape for image in raw.images] == [(4, 6), (9, 3, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 3}, "one label and one id each, got {'images': 3, 'labels': 2, 'ids': 2}"),
        ({"ids": ("a",)}, "one label and one id each"),
        ({"num_images": 0, "labels": (), "ids": ()}, "raw images must be at least one, got none in made up"),
        (
            {"ids": ("a", "a")},
            "ids must be unique, got 1 repeated, the first is a of image 2, which image 1 has;",
        ),
        ({"labels": (0, 2)}, "labels must be class indices below 2, got 0 to 2"),
        ({"labels": (-1, 1)}, "labels must be class indices below 2, got -1 to 1"),
        ({"splits": ["train"]}, "one label and one id each, got .*'splits': 1"),
        ({"splits": ["train", "dev"]}, r"splits must be train, validation, test, got \['dev'\]"),
    ],
)
def test_raw_images_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        raw_images(**changes)


def test_an_image_of_the_right_size_is_packed_unchanged(rng):
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(pack_image(image, 8, 3), image)


@pytest.mark.parametrize("is_upright", [False, True])
def test_the_shorter_side_is_filled_by_repeating_the_border(is_upright):
    image = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    filled = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8], [5, 6, 7, 8]], np.uint8)
    image, filled = (image.T, filled.T) if is_upright else (image, filled)
    assert np.array_equal(pack_image(image, 4, 1)[..., 0], filled)


def test_a_pixel_of_a_shrunk_image_is_the_mean_of_its_area(rng):
    image = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    means = image.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    assert np.abs(pack_image(image, 4, 1)[..., 0] - means).max() <= 0.5


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1), (3, 7, 1), (30, 20, 3)])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_an_image_of_any_shape_becomes_square(shape, num_channels):
    packed = pack_image(np.full(shape, 77, np.uint8), 8, num_channels)
    assert packed.shape == (8, 8, num_channels)
    assert packed.dtype == np.uint8
    assert (packed == 77).all()


def test_a_grey_image_has_three_equal_channels_in_colour(rng):
    image = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    packed = pack_image(image, 8, 3)
    assert all(np.array_equal(packed[..., channel], image) for channel in range(3))


def test_colour_becomes_grey_by_its_luma(rng):
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    luma = image @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(pack_image(image, 8, 1)[..., 0] - luma).max() <= 1


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8)])
def test_an_image_of_another_type_or_with_alpha_is_refused(image):
    with pytest.raises(ValueError, match="image must be uint8 with 1 or 3 channels, got"):
        pack_image(image, 8, 3)


def test_the_images_of_a_split_are_found_in_ascending_order(labelled_splits):
    order = np.random.default_rng(1).permutation(42)
    shuffled = replace(labelled_splits, splits=labelled_splits.splits[order])
    expected = [index for index in range(42) if shuffled.splits[index] == "validation"]
    assert shuffled.indices("validation").tolist() == expected


def test_a_split_without_images_is_refused(labelled_splits):
    with pytest.raises(ValueError, match="split must be one of test, train, validation, got 'training'"):
        labelled_splits.indices("training")


def test_the_classes_are_counted_by_the_highest_label_of_train(labelled_splits):
    assert labelled_splits.num_classes == 3
    few = replace(labelled_splits, labels=np.array([0, 4, 6]), splits=np.array(["train", "train", "test"]))
    assert few.num_classes == 5


def test_channel_statistics_are_those_of_all_pixels_at_once(rng):
    # More images than are summed at a time.
    images = rng.integers(0, 256, (4100, 2, 2, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 1, 2)))
    assert std == pytest.approx((images / 255).std(axis=(0, 1, 2)))


def test_a_constant_channel_has_no_spread():
    assert channel_statistics(np.full((3, 2, 2, 1), 51, np.uint8)) == ([pytest.approx(0.2)], [0.0])


def test_the_content_hash_does_not_depend_on_the_memory_layout(rng):
    images = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    assert content_hash(images[::2], ["a"]) == content_hash(images[::2].copy(), ["a"])


def test_the_content_hash_changes_with_pixels_shape_order_and_columns(rng):
    images = rng.integers(0, 256, (4, 4, 2, 1), dtype=np.uint8)
    changed = images.copy()
    changed[-1, -1, -1, -1] ^= 1
    hashes = [
        content_hash(images, [1, 2, 3, 4]),
        content_hash(changed, [1, 2, 3, 4]),
        content_hash(images.reshape(4, 2, 4, 1), [1, 2, 3, 4]),
        content_hash(images[::-1], [1, 2, 3, 4]),
        content_hash(images, [1, 2, 4, 3]),
        content_hash(images, [1, 2, 3, 4], [0, 0, 0, 0]),
        content_hash(images),
    ]
    assert len(set(hashes)) == len(hashes)


def test_the_content_hash_tells_the_columns_apart():
    images = np.zeros((2, 2, 2, 1), np.uint8)
    assert content_hash(images, ["x", "a1"], [2, 3]) != content_hash(images, ["x", "a"], [12, 3])


def test_chosen_images_are_read_in_order_whatever_their_number(rng, tmp_path):
    images = rng.integers(0, 256, (30, 600, 600, 1), dtype=np.uint8)  # more than is read at a time
    np.save(tmp_path / "images.npy", images)
    mapped, chosen = np.load(tmp_path / "images.npy", mmap_mode="r"), np.arange(29, 0, -1)
    chunks = list(read_chunks(mapped, chosen))
    assert len(chunks) > 1
    assert np.array_equal(np.concatenate(chunks), images[chosen])
    assert np.array_equal(mapped, images)  # also after its pages were given back


def test_channel_statistics_are_those_of_the_chosen_images(rng):
    images = rng.integers(0, 256, (9, 2, 2, 3), dtype=np.uint8)
    chosen = np.array([1, 4, 8])
    assert channel_statistics(images, chosen) == channel_statistics(images[chosen])


@pytest.mark.parametrize("channels", [1, 3])
def test_larger_images_are_shrunk_to_the_means_of_their_blocks(rng, tmp_path, channels):
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (5, 12, 12, channels), dtype=np.uint8))
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    shrunk = shrink_images(images, 4)
    assert (shrunk.shape, shrunk.dtype) == ((5, 4, 4, channels), np.uint8)
    blocks = images.reshape(5, 4, 3, 4, 3, channels).astype(float)
    np.testing.assert_allclose(shrunk, blocks.mean(axis=(2, 4)), atol=0.51)


def test_images_that_are_no_larger_stay_as_they_are(rng):
    images = rng.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    assert shrink_images(images, 12) is images


def test_images_have_equal_hashes_where_their_pixels_are_equal(rng):
    images = rng.integers(0, 256, (4, 3, 3, 1), dtype=np.uint8)
    images[2] = images[0]
    hashes = pixel_hashes(images)
    assert hashes[0] == hashes[2]
    assert len(set(hashes)) == 3


def test_the_middle_is_kept_by_crop_and_everything_by_stretch():
    image = np.tile(np.repeat(np.array([0, 100, 200, 255], np.uint8), 8), (16, 1))  # 16 x 32, four stripes
    assert pack_image(image, 16, 1, "crop")[..., 0].tolist() == image[:, 8:24].tolist()
    stretched = np.tile(np.repeat(np.array([0, 100, 200, 255], np.uint8), 4), (16, 1))
    assert pack_image(image, 16, 1, "stretch")[..., 0].tolist() == stretched.tolist()


def test_rows_of_splits_are_those_of_a_slow_loop_whatever_the_index(rng):
    splits = rng.choice(["train", "validation", "test", "removed"], 40)
    samples = pd.DataFrame({"split": splits}, index=rng.permutation(40))
    for chosen in (("train",), ("test", "validation"), ("nowhere",)):
        assert rows_of(samples, *chosen).tolist() == [row for row in range(40) if splits[row] in chosen]


def test_indices_are_spread_as_by_hand():
    indices = np.arange(10, 20)
    assert spread_evenly(indices, 5).tolist() == [10, 12, 14, 16, 18]
    assert spread_evenly(indices, 3).tolist() == [10, 13, 16]
    assert spread_evenly(indices, 99).tolist() == indices.tolist()
    assert spread_evenly(indices[:0], 3).tolist() == []


@pytest.mark.parametrize("count", [1, 7, 64, 100, 1000])
def test_every_class_of_a_sorted_set_has_its_share_of_the_spread(rng, count):
    labels = np.sort(rng.integers(0, 4, 1000))
    chosen = spread_evenly(np.arange(1000), count)
    assert len(chosen) == len(set(chosen.tolist())) == count
    for label in range(4):
        assert abs((labels[chosen] == label).sum() - count * (labels == label).mean()) <= 1


def test_a_spread_of_none_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        spread_evenly(np.arange(3), 0)


def test_images_have_the_label_and_the_split_of_their_samples(rng):
    images = rng.integers(0, 256, (3, 2, 2, 1), dtype=np.uint8)
    # As samples are read back: rows in the order of the images, whatever their index.
    samples = pd.DataFrame(
        {"label": [4, 0, 2], "class_name": ["e", "a", "c"], "split": ["test", "train", "train"]},
        index=[7, 1, 5],
    )
    data = LabelledImages.of(images, samples)
    assert data.images is images
    assert (data.labels.tolist(), data.num_classes) == ([4, 0, 2], 3)
    assert data.class_names == {4: "e", 0: "a", 2: "c"}
    assert data.indices("train").tolist() == [1, 2]


@pytest.fixture
def embedded(rng):
    """Forty samples, some in no split, and what a model gives for them."""
    samples = pd.DataFrame(
        {"id": [f"i{row}" for row in range(40)], "label": rng.integers(0, 3, 40)}, index=rng.permutation(40)
    )
    samples["split"] = rng.choice(["train", "validation", "test", "removed"], 40)
    outputs = {"embedding": torch.randn(40, 4), "logits": torch.randn(40, 3)}
    return NamedTensors(outputs, {"sample_ids": samples["id"].tolist()}), samples


@pytest.mark.parametrize("splits", [("train",), ("test", "validation"), ("nowhere",)])
def test_rows_and_labels_of_splits_are_those_of_a_slow_loop(embedded, splits):
    embeddings, samples = embedded
    labelled = LabelledEmbeddings.of(embeddings, samples)
    records = samples.to_dict("records")
    expected = [row for row, record in enumerate(records) if record["split"] in splits]
    assert labelled.rows_of(*splits).tolist() == expected
    vectors, labels = labelled.select("logits", *splits)
    assert vectors.tolist() == [embeddings.tensors["logits"][row].tolist() for row in expected]
    assert labels.tolist() == [records[row]["label"] for row in expected]


def test_logits_of_held_out_images_alone_are_found_by_their_rows(embedded):
    embeddings, samples = embedded
    rows = torch.from_numpy(np.flatnonzero(samples["split"].isin(["validation", "test"])))
    logits = embeddings.tensors["logits"]
    fewer = {**embeddings.tensors, "logits": logits[rows], "logits_rows": rows}
    labelled = LabelledEmbeddings.of(NamedTensors(fewer, embeddings.metadata), samples)
    whole = LabelledEmbeddings.of(embeddings, samples)
    for splits in (("test",), ("validation",), ("test", "validation")):
        for found, expected in zip(
            labelled.select("logits", *splits), whole.select("logits", *splits), strict=True
        ):
            assert np.array_equal(found, expected)
    assert labelled.select("embedding", "train")[0].shape == (len(labelled.rows_of("train")), 4)
    with pytest.raises(ValueError, match="splits must be those whose logits were kept, got train"):
        labelled.select("logits", "train")


def test_the_outputs_of_a_model_are_not_copied(embedded):
    embeddings, samples = embedded
    labelled = LabelledEmbeddings.of(embeddings, samples)
    assert labelled.outputs.keys() == embeddings.tensors.keys()
    for name, output in labelled.outputs.items():
        assert np.shares_memory(output, embeddings.tensors[name].numpy())


def test_embeddings_in_another_order_than_the_samples_have_no_labels(embedded):
    embeddings, samples = embedded
    with pytest.raises(ValueError, match=r"embeddings must have sample 'i39' at row 0, .*, got 'i0'"):
        LabelledEmbeddings.of(embeddings, samples.iloc[::-1])


def test_names_of_classes_and_images_give_no_orders_to_a_terminal():
    raw = RawImages(
        [np.zeros((1, 1), np.uint8)], np.zeros(1, np.int64), ["a\x1b[2J"], ["x\x1b]0;y\x07"], "here"
    )
    assert raw.class_names == [r"a\x1b[2J"]
    assert raw.ids == [r"x\x1b]0;y\x07"]
