import gc
import pickle
import tempfile
import time

import numpy as np
import pytest
import torch
from tests.core.data.packings import encoded_in

from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.views import loading
from supcon_pipeline.core.views.loading import ViewDataset, build_loader
from supcon_pipeline.core.views.policy import ViewPolicy
from supcon_pipeline.core.views.sampling import ClassBalancedBatches, ShuffledBatches

FLIPS = [{"name": "HorizontalFlip", "args": {"p": 0.5}}, {"name": "VerticalFlip", "args": {"p": 0.5}}]


def loader_of(num_images, batch_size=4, num_workers=0, num_views=2, transforms=FLIPS):
    """Images whose every pixel is their number, but for one corner that tells the flips apart."""
    images = np.arange(num_images, dtype=np.uint8).repeat(16).reshape(-1, 4, 4, 1)
    images[:, 0, 0] = 255
    policy = ViewPolicy(transforms, num_views)
    indices = np.arange(1, num_images)
    return build_loader(images, np.arange(num_images) % 3, indices, policy, batch_size, num_workers, seed=0)


@pytest.mark.parametrize(("num_images", "batch_size"), [(1, 1), (1, 8), (7, 3), (8, 4), (9, 4), (10, 1)])
def test_an_epoch_holds_every_index_once_in_batches_of_nearly_equal_size(num_images, batch_size):
    indices = np.arange(num_images) * 10
    batches = ShuffledBatches(indices, batch_size, seed=0)
    parts = [batch for _, batch in batches.epoch(0)]
    sizes = [len(part) for part in parts]
    assert sorted(np.concatenate(parts)) == list(indices)
    assert len(parts) == len(batches)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_a_thousand_images_by_256_are_four_batches_of_250():
    batches = ShuffledBatches(np.arange(1000), 256, seed=0)
    assert [len(batch) for _, batch in batches.epoch(0)] == [250] * 4


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    def order(seed, epoch):
        seeds, batches = zip(*ShuffledBatches(np.arange(20), 8, seed).epoch(epoch), strict=True)
        return [*seeds, *np.concatenate(batches)]

    batches = ShuffledBatches(np.arange(20), 8, seed=0)
    batches.epoch(0)
    seeds, parts = zip(*batches.epoch(3), strict=True)
    assert [*seeds, *np.concatenate(parts)] == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_no_two_batches_of_a_training_share_a_seed_for_their_views():
    batches = ShuffledBatches(np.arange(20), 5, seed=0)
    seeds = [seed for epoch in range(10) for seed, _ in batches.epoch(epoch)]
    assert len(set(seeds)) == 40


@pytest.mark.parametrize(
    ("num_images", "batch_size", "message"),
    [
        (4, 0, "batch_size must be at least 1, got 0"),
        (0, 4, "indices must hold at least one image, got none"),
    ],
)
def test_batches_of_nothing_are_refused(num_images, batch_size, message):
    with pytest.raises(ValueError, match=message):
        ShuffledBatches(np.arange(num_images), batch_size, seed=0)


def test_a_batch_holds_the_views_of_its_images_and_their_labels():
    loader = loader_of(10)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader) == 3
    numbers = torch.cat([batch.views[..., 1, 1, 0] for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    assert batches[0].views.shape == (3, 2, 4, 4, 1)
    assert batches[0].views.dtype == torch.uint8
    assert labels.dtype == torch.int64
    # Image 0 is not among the indices.
    assert sorted(numbers[:, 0].tolist()) == list(range(1, 10))
    assert torch.equal(numbers[:, 0], numbers[:, 1])
    assert torch.equal(labels, numbers[:, 0] % 3)


def test_the_number_of_workers_changes_nothing():
    alone, by_workers = loader_of(9), loader_of(9, num_workers=2)
    for first, second in zip(alone.epoch(2), by_workers.epoch(2), strict=True):
        assert torch.equal(first.views, second.views)
        assert torch.equal(first.labels, second.labels)


def test_views_change_from_epoch_to_epoch():
    def views_by_image(epoch):
        views = torch.cat([batch.views for batch in loader_of(30, num_views=1).epoch(epoch)])[:, 0]
        return views[views[:, 1, 1, 0].argsort()]

    assert not torch.equal(views_by_image(0), views_by_image(1))


def test_loading_leaves_the_random_state_of_torch_alone():
    before = torch.get_rng_state()
    list(loader_of(9).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def views_of(loader, epochs):
    return [batch.views for epoch in epochs for batch in loader.epoch(epoch)]


def equal_views(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_stay_over_epochs_and_give_what_the_main_process_gives(num_workers):
    loader = loader_of(9, num_workers=num_workers)
    views = views_of(loader, [0])
    workers = [process.pid for process in loader._stream._workers]
    views += views_of(loader, [1, 2])
    assert [process.pid for process in loader._stream._workers] == workers
    assert len(workers) == num_workers
    assert equal_views(views, views_of(loader_of(9), range(3)))


def test_workers_that_are_no_longer_needed_end_by_themselves_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    loader = loader_of(9, num_workers=2)
    views_of(loader, [0])
    workers = loader._stream._workers
    loader.close()
    # One that was terminated has a negative code.
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list(tmp_path.glob("pymp-*/*"))
    assert equal_views(views_of(loader, [1]), views_of(loader_of(9), [1]))


def test_workers_end_with_a_loader_that_nobody_closed():
    loader = loader_of(9, num_workers=2)
    views_of(loader, [0])
    workers = loader._stream._workers
    gc.disable()
    try:
        del loader
        assert [worker.exitcode for worker in workers] == [0, 0]
    finally:
        gc.enable()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_epoch_starts_at_any_batch_in_any_order(num_workers):
    loader, whole = loader_of(12, num_workers=num_workers), views_of(loader_of(12), [1])
    assert equal_views([batch.views for batch in loader.epoch(1, first_batch=1)], whole[1:])
    assert equal_views(views_of(loader, [1]), whole)
    interrupted = loader.epoch(1)
    assert torch.equal(next(interrupted).views, whole[0])
    assert equal_views(views_of(loader, [1]), whole)


def test_a_worker_uses_one_thread():
    import cv2

    class Threads(torch.utils.data.Dataset):
        def __getitem__(self, item):
            return cv2.getNumThreads(), torch.get_num_threads()

    loader = loader_of(9, num_workers=1)
    loader.dataset = Threads()
    assert next(loader.epoch(0)) == [1, 1]


class Hanging(torch.utils.data.Dataset):
    def __getitem__(self, item):
        time.sleep(2)


def test_a_worker_that_hangs_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(loading, "_TIME_LIMIT", 0.2)
    loader = loader_of(9, num_workers=1)
    loader.dataset = Hanging()
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0\.2 seconds"):
        next(loader.epoch(0))


def mapped_loader(tmp_path, num_workers):
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    policy = ViewPolicy(FLIPS, num_views=2)
    return build_loader(mapped, np.arange(300) % 3, np.arange(300), policy, 100, num_workers, seed=0)


def test_mapped_images_are_handed_over_as_the_place_of_their_file(tmp_path):
    dataset = mapped_loader(tmp_path, 0).dataset
    pickled = pickle.dumps(dataset)
    again = pickle.loads(pickled)
    assert len(pickled) < 20_000 < dataset.images.nbytes
    assert isinstance(again.images, np.memmap)
    assert np.array_equal(again.images, dataset.images)
    assert torch.equal(again[3, np.arange(5), 0].views, dataset[3, np.arange(5), 0].views)


def test_a_part_of_mapped_images_is_handed_over_as_it_is(tmp_path):
    dataset = mapped_loader(tmp_path, 0).dataset
    part = ViewDataset(dataset.images[10:20], dataset.labels, dataset.policy)
    assert np.array_equal(pickle.loads(pickle.dumps(part)).images, dataset.images[10:20])


def test_a_worker_that_is_not_forked_gives_the_same(tmp_path):
    before = torch.multiprocessing.get_start_method(allow_none=True)
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        views = views_of(mapped_loader(tmp_path, 1), [0])
    finally:
        torch.multiprocessing.set_start_method(before, force=True)
    assert equal_views(views, views_of(mapped_loader(tmp_path, 0), [0]))


def balanced(counts, batch_size=6, images_per_class=2, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    indices = np.arange(1, len(labels))
    return labels, ClassBalancedBatches(labels, indices, batch_size, images_per_class, seed)


def test_balanced_batches_hold_equally_many_different_images_of_different_classes():
    labels, batches = balanced([50, 5, 21, 3, 2, 9])
    for epoch in range(3):
        parts = [indices for _, indices in batches.epoch(epoch)]
        assert len(parts) == len(batches) == -(-89 // 6)
        for part in parts:
            _, counts = np.unique(labels[part], return_counts=True)
            assert counts.tolist() == [2, 2, 2]
            assert len(set(part)) == 6
            assert 0 not in part


def test_classes_and_the_images_of_each_come_equally_often_in_an_epoch():
    labels, batches = balanced([50, 5, 21, 3, 2, 9])
    drawn = np.concatenate([indices for _, indices in batches.epoch(0)])
    classes = np.bincount(labels[drawn], minlength=6)
    assert classes.max() - classes.min() <= 2
    for label in range(6):
        uses = np.bincount(drawn, minlength=len(labels))[1:][labels[1:] == label]
        assert uses.max() - uses.min() <= 1


def test_a_class_with_fewer_images_than_are_asked_for_repeats_them():
    labels, batches = balanced([20, 2, 20], batch_size=12, images_per_class=4)
    for _, part in batches.epoch(0):
        assert np.bincount(labels[part], minlength=3)[1] in (0, 4)
    rare = np.concatenate([part[labels[part] == 1] for _, part in batches.epoch(0)])
    assert set(rare) == {20, 21}


def test_balanced_batches_depend_on_the_seed_and_the_epoch_alone():
    def order(seed, epoch, before=()):
        _, batches = balanced([9, 9, 9, 9], seed=seed)
        for earlier in before:
            batches.epoch(earlier)
        return [(number, *part) for number, part in batches.epoch(epoch)]

    assert order(0, 3) == order(0, 3, before=[0, 1])
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_balanced_batches_that_hold_all_classes_are_an_even_share_of_each():
    labels, batches = balanced([4, 4, 4], batch_size=3, images_per_class=1)
    drawn = np.concatenate([part for _, part in batches.epoch(5)])
    assert np.bincount(labels[drawn]).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("batch_size", "images_per_class", "message"),
    [
        (7, 2, r"batch_size must be a multiple of images_per_class \(2\), got 7; set batch_size=8"),
        (
            8,
            2,
            r"batch_size must be at most 6 \(2 images of each of 3 classes\), got 8; add --params batch_siz",
        ),
        (6, 0, "images_per_class must be at least 1, got 0"),
        (0, 2, "batch_size must be a multiple"),
    ],
)
def test_balanced_batches_that_cannot_be_are_refused(batch_size, images_per_class, message):
    with pytest.raises(ValueError, match=message):
        balanced([9, 9, 9], batch_size, images_per_class)


@pytest.mark.parametrize(("sampler", "images_per_class"), [("balanced", None), ("class_balanced", None)])
def test_a_sampler_that_does_not_exist_so_is_refused(sampler, images_per_class):
    images, labels = np.zeros((4, 2, 2, 1), np.uint8), np.arange(4) % 2
    with pytest.raises(ValueError, match=f"sampler must be shuffled, or class_balanced.*got '{sampler}'"):
        build_loader(
            images, labels, np.arange(4), ViewPolicy([], 1), 2, 0, 0, sampler=sampler,
            images_per_class=images_per_class,
        )  # fmt: skip


def test_a_balanced_loader_gives_views_and_labels_of_its_batches():
    images = np.arange(12, dtype=np.uint8).repeat(4).reshape(-1, 2, 2, 1)
    labels = np.arange(12) % 3
    loader = build_loader(
        images,
        labels,
        np.arange(12),
        ViewPolicy([], 1),
        6,
        0,
        0,
        sampler="class_balanced",
        images_per_class=3,
    )
    for batch in loader.epoch(0):
        assert torch.equal(batch.labels, batch.views[:, 0, 0, 0, 0] % 3)
        assert batch.labels.unique(return_counts=True)[1].tolist() == [3, 3]


# Of the classes of `in_categories`: twelve, five and three of them.
KINDS = np.repeat(["bag", "shoe", ""], [12, 5, 3])


def in_categories(seed=0, batch_size=8, images_per_class=2, kinds=KINDS):
    labels = np.arange(20).repeat(6)
    batches = ClassBalancedBatches(
        *(labels, np.arange(120), batch_size, images_per_class, seed), categories=np.asarray(kinds)[labels]
    )
    return labels, batches


def test_the_classes_of_a_batch_are_of_one_category_where_it_has_enough():
    labels, batches = in_categories()
    seen = set()
    for epoch in range(4):
        for _, part in batches.epoch(epoch):
            classes, counts = np.unique(labels[part], return_counts=True)
            kinds, numbers = np.unique(KINDS[classes], return_counts=True)
            assert counts.tolist() == [2] * 4
            seen |= set(kinds)
            # Three classes have no category, and are filled up by one of another.
            assert sorted(numbers) == ([1, 3] if "" in kinds else [4])
    assert seen == set(KINDS)


@pytest.mark.parametrize(("batch_size", "num_epochs"), [(8, 40), (24, 100)])
def test_over_the_epochs_classes_of_large_and_small_categories_come_equally_often(batch_size, num_epochs):
    # Of 4 classes each, 15 batches an epoch, or of 12 classes, 5 batches.
    labels, batches = in_categories(batch_size=batch_size, images_per_class=2)
    drawn = np.concatenate([part for epoch in range(num_epochs) for _, part in batches.epoch(epoch)])
    uses = np.bincount(labels[drawn])
    for kind in set(KINDS):
        assert uses[kind == KINDS].mean() == pytest.approx(uses.mean(), rel=0.1)


def test_a_category_for_all_is_no_category():
    _, batches = in_categories(kinds=["bag"] * 20)
    for _, part in batches.epoch(0):
        assert len(np.unique(part)) == 8


def test_batches_of_categories_depend_on_the_seed_and_the_epoch_alone():
    def order(seed, epoch):
        return [(number, *part) for number, part in in_categories(seed)[1].epoch(epoch)]

    _, batches = in_categories()
    batches.epoch(0)
    assert order(0, 1) == [(number, *part) for number, part in batches.epoch(1)]
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_a_class_of_two_categories_is_refused_with_both():
    labels = np.arange(4).repeat(3)
    categories = np.array(["bag", "shoe"])[np.arange(12) % 2]
    message = "category must be the same for all images of a class, got bag, shoe for one of 4 classes"
    with pytest.raises(InputError, match=message):
        ClassBalancedBatches(labels, np.arange(12), 4, 2, 0, categories=categories)
    # What is not drawn does not count.
    ClassBalancedBatches(labels, np.arange(0, 12, 2), 4, 2, 0, categories=categories)


@pytest.fixture
def encoded_strips(tmp_path):
    """Six strips three times as wide as high, dark in the middle third and bright outside."""
    strips = np.full((6, 32, 96, 3), 200, np.uint8)
    strips[:, :, 32:64] = 20
    return encoded_in(tmp_path / "images.npy", strips, size=32)


def encoded_loader(images, num_workers=0, transforms=None):
    crop = [{"name": "RandomResizedCrop", "args": {"scale": [0.2, 1.0]}}]
    policy = ViewPolicy(crop if transforms is None else transforms, 4, (32, 32, 3), keeps_aspect=True)
    return build_loader(images, np.arange(6) % 2, np.arange(6), policy, 3, num_workers, seed=0)


def test_views_of_encoded_images_are_cut_from_the_whole_of_them(encoded_strips):
    views = np.concatenate([batch.views.numpy() for batch in encoded_loader(encoded_strips).epoch(0)])
    assert views.shape == (6, 4, 32, 32, 3)
    # The square in the middle, which evaluation sees, is dark all over.
    assert encoded_strips[:].max() < 60
    assert (views.max(axis=(2, 3, 4)) > 150).mean() > 0.7


def test_views_of_encoded_images_are_the_same_with_workers(encoded_strips):
    epochs = []
    for num_workers in (0, 2):
        loader = encoded_loader(encoded_strips, num_workers)
        epochs.append(torch.cat([batch.views for batch in loader.epoch(1)]))
        loader.close()
    assert torch.equal(*epochs)


def test_without_transforms_a_view_of_an_encoded_image_is_its_square(encoded_strips):
    (first, _) = encoded_loader(encoded_strips, transforms=[]).epoch(0)
    assert first.views.shape == (3, 4, 32, 32, 3)
    assert np.array_equal(first.views[0, 3].numpy(), encoded_strips[0])


def test_a_dataset_of_encoded_images_is_sent_as_the_place_of_their_file(encoded_strips):
    dataset = encoded_loader(encoded_strips).dataset
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000
    item = (0, np.array([2, 4]), 0)
    assert torch.equal(pickle.loads(sent)[item].views, dataset[item].views)
