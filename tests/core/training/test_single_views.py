import re
from itertools import product

import numpy as np
import pytest
from tests.core.training.trainings import CARD, make_data, stage1_parameters

from supcon_pipeline.core.data.images import LabelledImages
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.batches import LoaderParameters
from supcon_pipeline.core.training.recipes import contrastive_stage
from supcon_pipeline.core.training.single_views import ForwardPasses
from supcon_pipeline.core.training.stage import build_training
from supcon_pipeline.core.training.swa import average_models
from supcon_pipeline.core.views.sampling import ShuffledBatches

# Of images of 16 pixels, its last map has one pixel.
DEEP = {"name": "resnet18", "stem": "imagenet", "pretrained": False, "weights": None}


def build(data: LabelledImages, backbone=DEEP, **changes):
    params = stage1_parameters(backbone=backbone, **changes)
    return build_training(contrastive_stage(data, CARD, params), data)


def test_the_fewest_views_are_those_that_a_slow_loop_finds():
    for sizes in product(range(2, 14), range(2, 6), (None, 1, 2, 3), (1, 2)):
        num_images, batch_size, micro, num_processes = sizes
        loader = LoaderParameters(batch_size=batch_size, num_workers=0)
        found = []
        for _, batch in ShuffledBatches(np.arange(num_images), batch_size, 0).epoch(0):
            for share in filter(len, np.array_split(batch, num_processes)):
                num_parts = -(-len(share) // (micro or len(share)))
                found += [len(part) for part in np.array_split(share, num_parts)]
        assert min(found) == ForwardPasses(loader, num_images, 1, micro, num_processes).least_views(), sizes
    balanced = LoaderParameters(batch_size=6, num_workers=0, sampler="class_balanced", images_per_class=2)
    assert ForwardPasses(balanced, 100, 2, None, 1).least_views() == 12
    assert ForwardPasses(balanced, 100, 2, 4, 1).least_views() == 6


@pytest.mark.parametrize(
    ("batch_size", "changes", "message"),
    [
        (12, {"micro_batch_size": 1}, "stage1.micro_batch_size must .*, got 1; .* stage1.micro_batch_size=2"),
        (2, {}, "stage1.loader.batch_size must .*, got 2; add --params stage1.loader.batch_size=3"),
    ],
)
def test_a_network_that_cannot_take_single_views_is_refused_before_the_first_step(
    batch_size, changes, message
):
    data = make_data()
    if not changes:
        # 35 images to train on: one batch of two has but one.
        splits = data.splits.copy()
        splits[np.flatnonzero(splits == "train")[0]] = "removed"
        data = LabelledImages(data.images, data.labels, splits)
    asked = {"loader": {"batch_size": batch_size, "num_workers": 0}, "num_views": 1, **changes}
    with pytest.raises(InputError, match=message) as error:
        build(data, **asked)
    name, value = re.search(r"--params stage1\.(\S+)=(\d+)$", str(error.value)).groups()
    asked.update({name: int(value)} if changes else {"loader": {"batch_size": int(value), "num_workers": 0}})
    build(data, **asked)
    # Larger maps, or statistics that stay, are normalised one by one.
    asked = {"loader": {"batch_size": batch_size, "num_workers": 0}, "num_views": 1, **changes}
    build(data, backbone={**DEEP, "stem": "small_image"}, **asked)
    build(data, finetune={"freeze_batch_norm": True}, **asked)


def test_parts_of_single_images_are_made_whole_where_no_batch_size_alone_would_help():
    data = make_data()
    splits = data.splits.copy()
    splits[np.flatnonzero(splits == "train")[0]] = "removed"
    data = LabelledImages(data.images, data.labels, splits)
    asked = {"loader": {"batch_size": 2, "num_workers": 0}, "num_views": 1, "micro_batch_size": 1}
    remedy = "--params stage1.micro_batch_size=null,stage1.loader.batch_size=3$"
    with pytest.raises(InputError, match=remedy):
        build(data, **asked)
    build(data, **asked | {"loader": {"batch_size": 3, "num_workers": 0}, "micro_batch_size": None})


def test_no_image_is_alone_when_statistics_are_estimated_anew():
    data = make_data()
    splits = data.splits.copy()
    splits[np.flatnonzero(splits == "train")[0]] = "removed"
    data = LabelledImages(data.images, data.labels, splits)
    stage = contrastive_stage(data, CARD, stage1_parameters(backbone=DEEP))
    tensors = {name: tensor.detach() for name, tensor in stage.state_of(stage.model).items()}
    checkpoint = NamedTensors(tensors, stage.metadata("a") | {"epoch": 1, "metrics": {}})
    averaged = average_models([checkpoint], data, batch_size=2)
    assert all(tensor.isfinite().all() for tensor in averaged.tensors.values() if tensor.is_floating_point())
