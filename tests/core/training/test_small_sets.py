import re
from functools import partial

import numpy as np
import pytest
import yaml
from tests.conftest import ROOT
from tests.core.training.trainings import CARD, read_parameters, stage1_parameters, stage2_parameters

from supcon_pipeline.core.data.class_splits import split_classes
from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.data.splits import split_samples
from supcon_pipeline.core.parameters.stages import BaselineParameters, Stage1Parameters, Stage2Parameters
from supcon_pipeline.core.training.recipes import baseline_stage, contrastive_stage
from supcon_pipeline.core.training.small_sets import warn_of_small_sets
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.views.sampling import ClassBalancedBatches

pytestmark = pytest.mark.usefixtures("no_gpu")

BASELINE = BaselineParameters.model_validate(read_parameters("baseline"))
NAMES = {0: "cat", 1: "dog"}


def make_images(*counts: int, validation: int = 15, names: dict[int, str] | None = None) -> LabelledImages:
    """So many training images of each class, and so many of each to validate."""
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = np.concatenate([labels, np.tile(np.arange(len(counts)), validation)])
    splits = np.array(["train"] * sum(counts) + ["validation"] * validation * len(counts))
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 1), dtype=np.uint8)
    return LabelledImages(images, labels, splits, NAMES if names is None else names)


def warnings_of(data: LabelledImages, caplog: pytest.LogCaptureFixture, **changes: object) -> list[str]:
    """What is said of a stage 1 with these parameters, whose batches can be made."""
    caplog.clear()
    params, train = stage1_parameters(**changes), data.indices("train")
    if params.loader.images_per_class:
        ClassBalancedBatches(data.labels, train, params.loader.batch_size, params.loader.images_per_class, 0)
    warn_of_small_sets("stage1", params, data, params.loss.name != "simclr")
    return list(caplog.messages)


def pasted(text: str, changes: dict[str, object]) -> dict[str, object]:
    """The parameters, changed by what a warning says to type."""
    result = {**changes}
    for name, value in re.findall(r"stage1\.([\w.]+)=([\w.]+)", text):
        group, _, last = name.rpartition(".")
        result[group] = {
            **read_parameters("stage1")[group],
            **result.get(group, {}),
            last: yaml.safe_load(value),
        }
    return result


def loader(batch_size: int, images_per_class: int | None = None) -> dict[str, object]:
    """Parameters of shuffled or balanced batches."""
    sampler = "class_balanced" if images_per_class else "shuffled"
    given = {"batch_size": batch_size, "num_workers": 0, "sampler": sampler}
    return {"loader": {**given, "images_per_class": images_per_class}}


@pytest.mark.parametrize(("num_common", "is_rare"), [(16, False), (17, True)])
def test_a_class_that_is_often_alone_in_a_batch_is_named_where_batches_are_made(
    caplog: pytest.LogCaptureFixture, num_common: int, is_rare: bool
) -> None:
    found = warnings_of(make_images(num_common, 2, 2, validation=15), caplog, **loader(20))
    # Of 20 images, a batch of 20 has both; that is the whole epoch, and another warning.
    found = [text for text in found if "takes all" not in text]
    assert [text[:31] for text in found] == (["dog has 2 of 21 training images"] if is_rare else [])
    assert all("--params stage1.loader.sampler=class_balanced" in text for text in found)


def test_of_many_classes_with_few_images_their_number_is_told_with_what_to_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = make_images(*[5] * 40, names={label: f"bottle {label}" for label in range(40)})
    (text,) = warnings_of(data, caplog, **loader(32))
    assert text == (
        "40 of 40 classes have few of the 200 training images each: a shuffled batch of 32 often holds one "
        "of them or none, and an image alone has no positives but its own views; balance the classes with "
        "--params stage1.loader.sampler=class_balanced,stage1.loader.images_per_class=2"
    )
    assert warnings_of(data, caplog, **pasted(text, loader(32))) == []
    # One rare class among many is named.
    (text,) = warnings_of(make_images(*[20] * 20, 2, names={20: "dog"}), caplog, **loader(64))
    assert text.startswith("dog has 2 of 402 training images: a shuffled batch of 64 often")


@pytest.mark.parametrize(("batch_size", "images_per_class"), [(2, None), (4, 2), (6, 3), (9, None), (12, 6)])
def test_the_suggested_balance_is_one_that_the_loader_takes(
    caplog: pytest.LogCaptureFixture, batch_size: int, images_per_class: int | None
) -> None:
    data = make_images(100, 2)
    (text,) = warnings_of(data, caplog, **loader(batch_size))
    found = re.search(r"images_per_class=(\d+)", text)
    assert (found and int(found[1])) == images_per_class
    if found:
        warnings_of(data, caplog, **pasted(text, loader(batch_size)))


def test_a_class_without_a_name_is_called_by_its_label(caplog: pytest.LogCaptureFixture) -> None:
    assert [text[:7] for text in warnings_of(make_images(30, 2, names={}), caplog)] == ["class 1"]


def test_no_class_is_alone_in_balanced_batches_or_for_a_loss_without_labels(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = make_images(30, 2)
    assert warnings_of(data, caplog, **loader(4, 2)) == []
    loss = {**read_parameters("stage1")["loss"], "name": "simclr"}
    assert warnings_of(data, caplog, loss=loss) == []


def test_stages_say_it_when_they_are_built_and_cross_entropy_needs_no_positive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = make_images(30, 1)
    build_training(baseline_stage(data, CARD, stage1_parameters(), BASELINE), data)
    assert caplog.messages == []
    build_training(contrastive_stage(data, CARD, stage1_parameters()), data)
    assert [text[:28] for text in caplog.messages] == ["single training image of dog"]


def test_an_image_that_is_alone_in_its_class_is_named_for_every_sampler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = make_images(20, 1, 20, 1, names={0: "cat", 1: "dog", 2: "cow", 3: "hen"})
    for changes in (loader(12), loader(12, 3)):
        (text,) = warnings_of(data, caplog, **changes)
        assert text == (
            "single training image of dog, hen: its only positives are its own views; add images, or learn "
            "its label too with --params stage1.loss.classifier_weight=1"
        )
        assert [line[-10:] for line in warnings_of(data, caplog, **pasted(text, changes))] == ["add images"]


@pytest.mark.parametrize(
    ("counts", "batch_size", "images_per_class", "remedy"),
    [
        # As many of each class as the smallest has, and as many classes as before.
        ((12, 12, 12), 24, 8, None),
        ((12, 4, 12), 24, 8, (4, 12)),
        ((12, 5, 12), 16, 8, (5, 15)),
        ((40, 2), 12, 6, (2, 4)),
        # An image that is alone is told of elsewhere.
        ((12, 1, 12), 12, 6, None),
    ],
)
def test_images_that_repeat_in_a_balanced_batch_are_told_of(
    caplog: pytest.LogCaptureFixture,
    counts: tuple[int, ...],
    batch_size: int,
    images_per_class: int,
    remedy: tuple[int, int] | None,
) -> None:
    data, changes = make_images(*counts), loader(batch_size, images_per_class)
    texts = [text for text in warnings_of(data, caplog, **changes) if "repeat" in text]
    assert len(texts) == (remedy is not None)
    for text in texts:
        assert text.startswith(f"dog has {min(counts)} training images, but a batch takes {images_per_class}")
        assert text.endswith(
            f"--params stage1.loader.images_per_class={remedy[0]},stage1.loader.batch_size={remedy[1]}"
        )
        assert warnings_of(data, caplog, **pasted(text, changes)) == []
    simclr = {**changes, "loss": {**read_parameters("stage1")["loss"], "name": "simclr"}}
    wanted = [
        text.replace("are their own positives", "simclr takes an image beside itself for another")
        for text in texts
    ]
    assert [text for text in warnings_of(data, caplog, **simclr) if "repeat" in text] == wanted


@pytest.mark.parametrize(
    ("counts", "batch", "remedy"),
    [
        ((20, 20), (40, None), "loader.batch_size=8"),
        ((20, 20), (39, None), None),
        ((20, 20), (128, None), "loader.batch_size=8"),
        # On average two of the rarest class.
        ((36, 4), (128, None), "loader.batch_size=20"),
        # A smaller batch would leave images without positives: more epochs it is.
        ((38, 2), (128, None), "schedule.num_epochs=16"),
        ((2, 2, 2), (128, None), "schedule.num_epochs=16"),
        # Balanced batches are of two classes or more.
        ((20, 20), (40, 20), "schedule.num_epochs=16"),
        ((10, 10, 10, 10), (40, 10), "loader.batch_size=20"),
        ((2,) * 20, (40, 2), "loader.batch_size=8"),
    ],
)
def test_an_epoch_of_one_step_is_told_of_with_what_gives_more(
    caplog: pytest.LogCaptureFixture,
    counts: tuple[int, ...],
    batch: tuple[int, int | None],
    remedy: str | None,
) -> None:
    data, changes = make_images(*counts), loader(*batch)
    texts = warnings_of(data, caplog, **changes)
    if remedy is None:
        assert texts == []
        return
    (text,) = texts
    assert text == (
        f"a batch of {batch[0]} takes all {sum(counts)} training images, so that the training has no more "
        f"than 4 steps, one an epoch; for more, add --params stage1.{remedy}"
    )
    again = warnings_of(data, caplog, **pasted(text, changes))
    assert len(again) == ("num_epochs" in remedy)


def test_the_classifier_may_have_smaller_batches_still(caplog: pytest.LogCaptureFixture) -> None:
    data = make_images(38, 2)
    warn_of_small_sets("stage2", stage2_parameters(), data, False)
    assert caplog.messages == []
    warn_of_small_sets("stage2", stage2_parameters(loader={"batch_size": 64, "num_workers": 0}), data, False)
    assert [text.rpartition("add ")[2] for text in caplog.messages] == ["--params stage2.loader.batch_size=8"]


@pytest.mark.parametrize(
    ("counts", "validation", "fraction"),
    [
        ((100, 100), 13, None),
        ((100, 100), 12, "0.15"),
        # Two of each class.
        ((5,) * 30, 1, "0.35"),
        # No more than half.
        ((9, 9), 3, "0.5"),
        ((8, 8), 8, None),
        # Two of each class stay in train, whatever the fraction.
        ((2,) * 6, 1, None),
    ],
)
def test_few_validation_images_are_told_of_with_a_fraction_that_gives_more(
    caplog: pytest.LogCaptureFixture, counts: tuple[int, ...], validation: int, fraction: str | None
) -> None:
    data = make_images(*counts, validation=validation)
    texts = [text for text in warnings_of(data, caplog) if text.startswith("the checkpoints are chosen")]
    count = validation * len(counts)
    assert len(texts) == (count < 25 or validation == 1)
    for text in texts:
        assert (
            f"of {count} validation images of {len(counts)} classes: one image is {100 / count:.1f} %" in text
        )
        found = re.search(r"--params data_prep\.validation_fraction=([\d.]+)$", text)
        assert (found and found[1]) == fraction
        if found:
            splits = split_samples(data.labels, float(found[1]), 0.01, seed=0)
            assert (splits == "validation").sum() > count


def test_few_classes_to_validate_are_told_of_with_a_fraction_where_that_gives_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for num_classes, fraction in ((7, None), (12, "0.4")):
        labels = np.repeat(np.arange(num_classes), 5)
        splits = np.repeat(["train", "validation", "test"], [5 * (num_classes - 4), 10, 10])
        data = LabelledImages(np.zeros((len(labels), 8, 8, 1), np.uint8), labels, splits)
        (text,) = (text for text in warnings_of(data, caplog) if "chosen by" in text)
        found = re.search(r"--params data_prep\.validation_fraction=([\d.]+)$", text)
        assert (found and found[1]) == fraction
        if fraction:
            again = split_classes(labels, float(fraction), 0.01, seed=0)
            assert len(set(labels[again == "validation"])) > 2


def test_smaller_batches_of_the_baseline_are_those_in_which_stage_1_has_positives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for counts, remedy in (((20, 20), "loader.batch_size=8"), ((2,) * 6, "schedule.num_epochs=16")):
        data, params = make_images(*counts), stage1_parameters(**loader(64))
        for build in (partial(baseline_stage, baseline=BASELINE), contrastive_stage):
            caplog.clear()
            build_training(build(data, CARD, params), data)
            assert [text.rpartition(" ")[2] for text in caplog.messages] == [f"stage1.{remedy}"]


def ordinary(env: str) -> tuple[Stage1Parameters, Stage2Parameters]:
    """The parameters of an environment."""
    changes = yaml.safe_load((ROOT / f"conf/{env}/parameters.yml").read_text()) if env != "base" else {}

    def merged(stage: str) -> dict[str, object]:
        defaults, own = read_parameters(stage), changes.get(stage, {})
        for name, value in own.items():
            is_group = isinstance(value, dict) and isinstance(defaults.get(name), dict)
            defaults[name] = {**defaults[name], **value} if is_group else value
        return defaults

    return Stage1Parameters.model_validate(merged("stage1")), Stage2Parameters.model_validate(
        merged("stage2")
    )


@pytest.mark.parametrize(
    ("env", "num_images", "num_classes"),
    [
        ("base", 1797, 10),
        ("images", 200, 2),
        ("images", 397, 2),
        ("images", 300, 5),
        ("images_scratch", 600, 5),
    ],
)
def test_an_ordinary_training_is_warned_of_nothing(
    caplog: pytest.LogCaptureFixture, env: str, num_images: int, num_classes: int
) -> None:
    stage1, stage2 = ordinary(env)
    labels = np.arange(num_images) % num_classes
    data_prep = read_parameters("data_prep")
    fractions = data_prep["validation_fraction"], data_prep["test_fraction"]
    data = LabelledImages(
        np.zeros((num_images, 8, 8, 1), np.uint8), labels, split_samples(labels, *fractions, 0)
    )
    warn_of_small_sets("stage1", stage1, data, True)
    warn_of_small_sets("stage2", stage2, data, False)
    assert caplog.messages == []
