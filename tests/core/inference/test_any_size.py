import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame

from supcon_pipeline.core.inference.any_size import at_another_size
from supcon_pipeline.core.inference.comparison import compare_outputs
from supcon_pipeline.core.inference.export import (
    assemble_outputs,
    describe_export,
    run_module,
    trace_program,
)
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.named_tensors import NamedTensors


def test_images_at_another_size_are_repeated():
    larger = at_another_size(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1))
    assert larger[0, :, :, 0].tolist() == [[0, 1, 0], [2, 3, 2]] * 2


def sees_the_middle(image_size):
    description = {"kind": "contrastive", "backbone": "resnet_narrow", "stem": "small_image"}
    description |= {"mean": [0.5], "std": [0.25], "hidden_dim": 4, "dim": 2}
    description |= {"stored_size": 32, "center_crop": 0.75, "image_size": image_size}
    torch.manual_seed(0)
    origin = {"data_hash": "abc", "crop": "pad", "run_id": "first"}
    return NamedTensors(build_model(description).state_dict(), {"model": description, **origin})


def test_a_network_that_sees_the_middle_sees_the_same_share_of_images_of_any_size():
    encoder = sees_the_middle(image_size=24)
    module, plain = assemble_outputs(encoder, dynamic_resolution=True), assemble_outputs(encoder)
    run = trace_program(module, describe_export(module, encoder, []), True).open()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 1), dtype=np.uint8)
    # What is no stored image is seen whole.
    compare_outputs("it", run_module(plain, pixels[:, 8:56, 12:84]), run(pixels), tolerance=1e-5)
    stored = pixels[:, :32, :32]
    compare_outputs("it", run_module(plain, stored), run(stored), tolerance=1e-5)


def test_a_network_that_resizes_what_it_sees_is_made_for_one_size():
    message = r"^export.dynamic_resolution .* got true \(it sees 24 pixels of an image as 16\); leave it out$"
    with pytest.raises(InputError, match=message):
        assemble_outputs(sees_the_middle(image_size=16), dynamic_resolution=True)


def test_a_network_that_pads_by_the_size_of_the_image_is_refused_before_it_is_traced():
    padding = torch.nn.Sequential(Conv2dSame(1, 2, 3, stride=2))
    sizes = {"image_size": 8, "num_channels": 1}
    with pytest.raises(
        InputError, match=r"must be false .*, got true with Conv2dSame; add --params export.dyn"
    ):
        trace_program(padding, sizes, dynamic_resolution=True)
