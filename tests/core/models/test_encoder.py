import pytest
import torch
from torch import nn
from torch.nn import functional

from supcon_pipeline.core.models.encoder import Encoder, LinearProbe, build_classifier, build_model

CONTRASTIVE = {
    "kind": "contrastive",
    "backbone": "resnet_narrow",
    "stem": "small_image",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "hidden_dim": 6,
    "dim": 5,
}


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)


@pytest.fixture
def probe():
    return LinearProbe(build_model(CONTRASTIVE).encoder, build_classifier(256, 3))


def test_pixels_are_normalised_by_channel_before_the_backbone():
    encoder = Encoder(nn.Identity(), mean=[0.2, 0.4], std=[0.5, 0.1])
    image = torch.tensor([[[[51, 255], [255, 0]]]], dtype=torch.uint8)
    # (0.2 - 0.2) / 0.5 and (1 - 0.2) / 0.5; (1 - 0.4) / 0.1 and (0 - 0.4) / 0.1
    expected = torch.tensor([[[[0.0, 1.6]], [[6.0, -4.0]]]])
    torch.testing.assert_close(encoder(image), expected)


def test_a_constant_channel_is_zero():
    encoder = Encoder(nn.Identity(), mean=[0.2], std=[0.0])
    assert encoder(torch.full((1, 2, 2, 1), 51, dtype=torch.uint8)).abs().max() < 1e-6


def test_the_normalisation_is_kept_with_the_weights():
    state = build_model(CONTRASTIVE).state_dict()
    assert state["encoder.mean"].flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert state["encoder.std"].flatten().tolist() == pytest.approx([0.2, 0.3, 0.4])


def test_one_forward_gives_the_embedding_and_its_projection(images):
    model = build_model(CONTRASTIVE).eval()
    outputs = model(images)
    pixels = (images.permute(0, 3, 1, 2) / 255 - model.encoder.mean) / model.encoder.std
    embedding = model.encoder.backbone(pixels)
    first, _, second = model.projection_head
    hidden = (embedding @ first.weight.T + first.bias).clamp(min=0)
    rows = hidden @ second.weight.T + second.bias
    assert outputs.keys() == {"embedding", "projection"}
    torch.testing.assert_close(outputs["embedding"], embedding)
    torch.testing.assert_close(outputs["projection"], rows / rows.norm(dim=1, keepdim=True))
    assert outputs["embedding"].shape == (4, 256)
    assert outputs["projection"].shape == (4, 5)


def test_a_batch_of_one_gives_the_same_as_in_a_larger_batch(images):
    model = build_model(CONTRASTIVE).eval()
    alone, together = model(images[:1]), model(images)
    for name, rows in together.items():
        torch.testing.assert_close(alone[name], rows[:1])


@pytest.mark.parametrize("kind", ["contrastive", "image_classifier"])
def test_a_model_with_classes_gives_the_logits_of_its_classifier_on_its_own_embeddings(images, kind):
    description = {**CONTRASTIVE, "kind": kind, "num_classes": 3}
    if kind == "image_classifier":
        del description["hidden_dim"], description["dim"]
    model = build_model(description).eval()
    outputs = model(images)
    torch.testing.assert_close(outputs["embedding"], model.encoder(images))
    weight, bias = model.classifier.weight, model.classifier.bias
    torch.testing.assert_close(outputs["logits"], outputs["embedding"] @ weight.T + bias)
    assert outputs["logits"].shape == (4, 3)


def test_the_classifier_and_the_head_of_a_model_both_train_its_encoder(images):
    model = build_model({**CONTRASTIVE, "num_classes": 3})
    for name in ("projection", "logits"):
        model.zero_grad()
        model(images)[name][:, 0].sum().backward()
        assert all(parameter.grad.norm() > 0 for parameter in model.encoder.backbone.stem.parameters())


@pytest.mark.parametrize("kind", ["contrastive", "image_classifier"])
@pytest.mark.parametrize(
    ("backbone", "stem"),
    [("resnet_narrow", "small_image"), ("resnet18", "small_image"), ("resnet18", "imagenet")],
)
def test_every_kernel_is_laid_out_with_its_channels_last_as_its_activations_are(images, kind, backbone, stem):
    description = {**CONTRASTIVE, "kind": kind, "backbone": backbone, "stem": stem}
    if kind == "image_classifier":
        del description["hidden_dim"], description["dim"]
        description["num_classes"] = 3
    model, layouts = build_model(description).eval(), []
    kernels = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for kernel in kernels:
        kernel.register_forward_hook(lambda _kernel, _inputs, output: layouts.append(output.stride(1)))
    model(images)
    # The stride of the channels: in the other layout it is the number of places of a kernel.
    assert [kernel.weight.stride(1) for kernel in kernels] == layouts == [1] * len(kernels)
    assert len(kernels) > 5


def test_the_memory_layout_of_the_weights_changes_no_embedding(images):
    model = build_model(CONTRASTIVE).eval()
    before = model(images)["embedding"]
    after = model.to(memory_format=torch.contiguous_format)(images)["embedding"]
    torch.testing.assert_close(before, after)


def test_a_probe_gives_the_logits_of_its_classifier_on_the_embeddings(probe, images):
    embedding = probe.encoder(images)
    weight, bias = probe.classifier.weight, probe.classifier.bias
    outputs = probe(images)
    torch.testing.assert_close(outputs["embedding"], embedding)
    torch.testing.assert_close(outputs["logits"], embedding @ weight.T + bias)


def test_training_a_probe_leaves_its_encoder_as_it_was(probe, images):
    probe.train()
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1, weight_decay=0.1)
    functional.cross_entropy(probe(images)["logits"], torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {name for name, value in probe.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_the_encoder_of_a_probe_stays_in_evaluation_mode(probe):
    assert probe.train() is probe
    assert probe.classifier.training
    assert not any(module.training for module in probe.encoder.modules())


def test_a_model_is_rebuilt_from_its_description(images):
    model, rebuilt = build_model(CONTRASTIVE).eval(), build_model(dict(CONTRASTIVE)).eval()
    assert not torch.equal(model(images)["embedding"], rebuilt(images)["embedding"])
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(model(images)["projection"], rebuilt(images)["projection"])


def test_a_classifier_is_built_from_its_description():
    classifier = build_model({"kind": "classifier", "num_features": 7, "num_classes": 3})
    assert classifier(torch.rand(2, 7)).shape == (2, 3)


@pytest.mark.parametrize("description", [{"kind": "regressor"}, {"num_features": 7, "num_classes": 3}])
def test_a_description_of_an_unknown_kind_is_refused(description):
    with pytest.raises(
        ValueError, match=r"one of contrastive, image_classifier, classifier, got ('regressor'|None)"
    ):
        build_model(description)
