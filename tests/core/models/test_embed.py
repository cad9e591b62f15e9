import weakref

import numpy as np
import pytest
import torch
from tests.core.data.packings import encoded_in
from torch import nn

from supcon_pipeline.core.models.embed import embed_by, embed_images, iterate_images
from supcon_pipeline.core.models.encoder import build_model
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.ranks import Ranks

pytestmark = pytest.mark.usefixtures("no_gpu")


class TinyModel(nn.Module):
    """A batch norm, so that the mode matters, and two linear features."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.norm = nn.BatchNorm1d(12, dtype=dtype)
        self.heads = nn.ModuleList([nn.Linear(12, width, dtype=dtype) for width in (5, 3)])
        self.batch_sizes, self.is_inference = [], []

    def forward(self, images):
        self.batch_sizes.append(len(images))
        self.is_inference.append(torch.is_inference_mode_enabled())
        rows = self.norm(images.flatten(1).to(self.norm.weight.dtype) / 255)
        return {name: head(rows) for name, head in zip(("embedding", "logits"), self.heads, strict=True)}


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (10, 2, 2, 3), dtype=np.uint8)


INDICES = np.array([7, 0, 3, 3, 9, 1, 2])


def test_images_come_in_the_order_of_the_indices_and_none_is_left_out(images):
    batches = list(iterate_images(images, INDICES, 3, torch.device("cpu")))
    assert [len(batch) for batch in batches] == [3, 2, 2]
    assert np.array_equal(torch.cat(batches).numpy(), images[INDICES])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_every_row_of_every_output_is_that_of_its_image_alone(images, batch_size):
    model = TinyModel()
    outputs = embed_images(model, images, INDICES, batch_size)
    assert {name: tuple(rows.shape) for name, rows in outputs.items()} == {
        "embedding": (7, 5),
        "logits": (7, 3),
    }
    model.eval()
    for row, index in enumerate(INDICES):
        alone = model(torch.from_numpy(images[index : index + 1]))
        for name, rows in outputs.items():
            torch.testing.assert_close(rows[row], alone[name][0])


def test_encoded_images_are_embedded_as_their_squares_are(images, tmp_path):
    encoded, model = encoded_in(tmp_path / "images.npy", images, size=2), TinyModel()
    found, wanted = (embed_images(model, given, INDICES, 3) for given in (encoded, encoded[:]))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_each_image_passes_the_network_once(images):
    model = TinyModel()
    embed_images(model, images, INDICES, batch_size=3)
    assert model.batch_sizes == [3, 2, 2]


def test_nothing_is_kept_for_gradients(images):
    model = TinyModel()
    outputs = embed_images(model, images, INDICES, batch_size=3)
    assert model.is_inference == [True] * 3
    assert all(rows.is_inference() and not rows.requires_grad for rows in outputs.values())
    # And no longer than that.
    assert model(torch.from_numpy(images))["embedding"].requires_grad


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_is_left_as_it_was(images, is_training):
    model = TinyModel().train(is_training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embed_images(model, images, INDICES, 3)
    assert all(module.training == is_training for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_the_outputs_of_one_batch_are_held_at_a_time(images):
    """Each earlier output has been let go of when the next but one image passes."""
    model, held, most = TinyModel(), [], []

    def watch(_module, _images, outputs):
        most.append(sum(reference() is not None for reference in held))
        held.extend(weakref.ref(rows) for rows in outputs.values())

    model.register_forward_hook(watch)
    embed_images(model, images, INDICES, 1)
    # Those of the batch before are still named when the next is computed.
    assert len(most) == 7
    assert max(most) <= 2


def test_outputs_of_lower_precision_come_as_float32(images):
    outputs = embed_images(TinyModel(torch.bfloat16), images, INDICES, 3)
    assert [rows.dtype for rows in outputs.values()] == [torch.float32] * 2
    assert not any(rows.requires_grad for rows in outputs.values())


def test_images_mapped_from_a_file_for_reading_work(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    model = TinyModel()
    outputs, expected = (embed_images(model, either, INDICES, 3) for either in (mapped, images))
    assert all(torch.equal(outputs[name], expected[name]) for name in expected)


def test_no_image_gives_no_row(images):
    outputs = embed_images(TinyModel(), images, INDICES[:0], 3)
    assert {name: tuple(rows.shape) for name, rows in outputs.items()} == {
        "embedding": (0, 5),
        "logits": (0, 3),
    }


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_logits_are_kept_for_the_images_asked_for_alone_and_have_the_same_bits(images, batch_size):
    model = TinyModel()
    everything = embed_images(model, images, INDICES, batch_size)
    is_kept = np.array([False, True, False, False, False, True, True])
    outputs = embed_images(model, images, INDICES, batch_size, logits_for=is_kept)
    assert torch.equal(outputs["embedding"], everything["embedding"])
    assert torch.equal(outputs["logits"], everything["logits"][[1, 5, 6]])


def test_outputs_that_nobody_asked_for_take_no_memory(images):
    outputs = embed_images(TinyModel(), images, INDICES, 3, names=("embedding", "projection"))
    assert list(outputs) == ["embedding"]


def test_some_of_the_logits_are_refused_where_processes_share_the_images(images):
    with pytest.raises(ValueError, match="logits_for must be None with several processes, got it with 2"):
        embed_images(TinyModel(), images, INDICES, 3, Ranks(count=2), logits_for=np.ones(7, dtype=bool))


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_the_model_of_a_state_embeds_all_images_and_is_known_by_its_hash(images, batch_size):
    description = {
        "kind": "contrastive",
        "backbone": "resnet_narrow",
        "stem": "small_image",
        "image_size": 8,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "hidden_dim": 4,
        "dim": 2,
    }
    images = images.repeat(4, axis=1).repeat(4, axis=2)
    model = build_model(description).eval()
    state = NamedTensors(model.state_dict(), {"model": description})
    embeddings = embed_by(state, images, batch_size, torch.device("cpu"))
    assert embeddings.metadata == {"model_hash": fingerprint(state)}
    with torch.no_grad():
        expected = model(torch.from_numpy(images))["embedding"]
    torch.testing.assert_close(embeddings.tensors["embedding"], expected, rtol=1e-4, atol=1e-5)
