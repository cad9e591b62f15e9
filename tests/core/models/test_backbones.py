import math
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn
from torchvision.models.resnet import BasicBlock

from supcon_pipeline.core.models.backbones import build_backbone, published_statistics, require_backbone
from supcon_pipeline.core.models.encoder import build_contrastive_model, build_model, restore_model
from supcon_pipeline.core.models.narrow_resnet import NarrowResNet
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.models import BackboneParameters

# One small member of each family, the image size for its imagenet stem, and its widths counted from the
# definitions of the networks: the input of their last linear layer, or for the convolutional classifiers
# with several, of the first.
FAMILIES = {
    "resnet18": (32, 512),
    "densenet121": (32, 1024),
    "efficientnet_b0": (32, 1280),
    "mobilenet_v2": (32, 1280),
    "mobilenet_v3_small": (32, 576),
    "mnasnet0_5": (32, 1280),
    "shufflenet_v2_x0_5": (32, 1024),
    "squeezenet1_1": (32, 512),
    "regnet_x_400mf": (32, 400),
    "convnext_tiny": (32, 768),
    "swin_t": (32, 768),
    "swin_v2_t": (32, 768),
    "googlenet": (32, 1024),
    "inception_v3": (80, 2048),
    "alexnet": (64, 256 * 6 * 6),
    "vgg11": (32, 512 * 7 * 7),
    "timm/test_resnet": (32, 96),
    "timm/test_convnext": (32, 64),
    "timm/test_efficientnet": (32, 256),
    "timm/hgnetv2_b0": (32, 2048),
}
TRANSFORMERS = {
    "vit_b_32": (64, 768),
    "timm/test_vit": (48, 64),
    "timm/vit_tiny_patch16_224": (32, 192),
    # Torchvision's MaxViT has windows of 7 x 7 places and so needs multiples of 224 pixels.
    "timm/maxvit_rmlp_pico_rw_256": (64, 256),
}
TWICE_AS_FINE = [
    "resnet18",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "convnext_tiny",
    "timm/test_resnet",
    "timm/test_convnext",
    "timm/hgnetv2_b0",
]
POOLED_TO_ONE_PLACE = {"alexnet": 256, "vgg11": 512}


@pytest.fixture
def quick_start(monkeypatch):
    """Large networks that start and run quickly, where the numbers do not matter."""

    def draw(tensor, *_args, **_options):
        with torch.no_grad():
            return tensor.uniform_(-0.05, 0.05)

    for name in ("trunc_normal_", "normal_", "kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, draw)
    num_threads = torch.get_num_threads()
    # Threads would wait for one another at every one of many tiny layers.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def output_sizes(network, image_size, kind=nn.Conv2d):
    """The sides of what the modules of a kind give for a square image, in order."""
    sizes = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-1]))
    with torch.inference_mode():
        network.eval()(torch.rand(1, 3, image_size, image_size))
    return sizes


def input_convolution(network):
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(("name", "size", "width"), [(k, *v) for k, v in (FAMILIES | TRANSFORMERS).items()])
def test_a_network_as_published_gives_a_row_of_its_width_for_one_image(name, size, width):
    network, num_features = build_backbone(name, "imagenet", image_size=size)
    assert network.training
    with torch.inference_mode():
        features = network.eval()(torch.rand(1, 3, size, size))
    assert features.shape == (1, num_features) == (1, width)


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(("name", "width"), [(name, width) for name, (_, width) in FAMILIES.items()])
def test_a_small_stem_takes_grey_images_and_its_first_convolution_learns(name, width):
    network, num_features = build_backbone(name, "small_image", num_channels=1, image_size=32)
    features = network(torch.rand(2, 1, 32, 32))
    assert features.shape == (2, num_features) == (2, POOLED_TO_ONE_PLACE.get(name, width))
    # Not the plain sum, which a layer norm at the end holds constant.
    (features * torch.rand_like(features)).sum().backward()
    assert input_convolution(network).weight.grad.abs().sum() > 0


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", TWICE_AS_FINE)
def test_a_small_stem_keeps_at_least_twice_the_resolution(name):
    before, after = (
        output_sizes(build_backbone(name, stem, image_size=64)[0], 64) for stem in ("imagenet", "small_image")
    )
    assert after[0] >= 2 * before[0] - 2
    # The last stage is at least twice as wide too, but for what rounding and unpadded borders take.
    assert after[-1] >= 2 * before[-1] - 1


@pytest.mark.usefixtures("quick_start")
def test_the_features_of_a_network_are_what_its_classifier_was_given():
    for name in ("efficientnet_b0", "convnext_tiny", "mnasnet0_5"):
        network, _ = build_backbone(name, "imagenet", image_size=32)
        reference = torchvision.models.get_model(name, weights=None).eval()
        reference.load_state_dict(network.state_dict(), strict=False)
        seen = []
        reference.classifier[-1].register_forward_hook(
            lambda _module, inputs, _output, to=seen: to.append(*inputs)
        )
        images = torch.rand(2, 3, 32, 32)
        reference(images)
        assert torch.equal(network.eval()(images), seen[0])


def test_the_narrow_network_takes_colour_and_grey_and_one_image():
    for num_channels in (1, 3):
        network, num_features = build_backbone("resnet_narrow", num_channels=num_channels)
        assert network.eval()(torch.rand(1, num_channels, 8, 8)).shape == (1, num_features) == (1, 256)


def test_the_narrow_network_has_the_parameters_counted_by_hand():
    def block(width_in, width):
        return width_in * 9 * width + 2 * width + width * 9 * width + 2 * width

    stem = 3 * 9 * 32 + 2 * 32
    stages = block(32, 32) + block(32, 64) + block(64, 128) + block(128, 256)
    shortcuts = 32 * 64 + 2 * 64 + 64 * 128 + 2 * 128 + 128 * 256 + 2 * 256
    assert sum(p.numel() for p in NarrowResNet().parameters()) == stem + stages + shortcuts


@pytest.mark.parametrize(("stem", "sizes"), [("small_image", [32, 16, 8, 4]), ("imagenet", [16, 8, 4, 2])])
def test_the_stem_of_the_narrow_network_halves_once_for_small_images_and_twice_for_photographs(stem, sizes):
    network, _ = build_backbone("resnet_narrow", stem)
    assert output_sizes(network, 64, BasicBlock) == sizes


def test_both_stems_of_the_narrow_network_take_the_same_weights():
    small, large = (build_backbone("resnet_narrow", stem)[0] for stem in ("small_image", "imagenet"))
    large.load_state_dict(small.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert not torch.allclose(large.eval()(images), small.eval()(images))


def test_the_narrow_network_starts_with_weights_scaled_to_their_fan_out():
    weights = NarrowResNet().stages[-1].conv2.weight
    assert weights.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)


@pytest.mark.parametrize(("stem", "size"), [("small_image", 16), ("imagenet", 4)])
def test_the_small_stem_of_a_residual_network_divides_by_one_instead_of_four(stem, size):
    network, _ = build_backbone("resnet18", stem)
    # The convolutions of the stem and of the first stage.
    assert output_sizes(network, 16)[1] == size


def test_the_small_stem_of_a_residual_network_is_the_convolution_of_the_paper_drawn_after_the_rest():
    torch.manual_seed(0)
    network, _ = build_backbone("resnet18", "small_image")
    torch.manual_seed(0)
    reference = torchvision.models.resnet18()
    reference.conv1 = nn.Conv2d(3, 64, 3, 1, padding=1, bias=False)
    reference.maxpool, reference.fc = nn.Identity(), nn.Identity()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(network.eval()(images), reference.eval()(images))


@pytest.mark.usefixtures("quick_start")
def test_patches_are_halved_and_their_resampled_kernel_answers_a_plain_image_alike(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(torchvision.models.convnext_tiny().state_dict(), path)
    large, small = (
        input_convolution(build_backbone("convnext_tiny", stem, weights=str(path))[0])
        for stem in ("imagenet", "small_image")
    )
    assert (small.kernel_size, small.stride, small.padding) == ((2, 2), (2, 2), (0, 0))
    blocks = large.weight.unflatten(2, (2, 2)).unflatten(4, (2, 2)).sum(dim=(3, 5))
    torch.testing.assert_close(small.weight, blocks)


@pytest.mark.parametrize("name", ["resnet18", "timm/test_resnet"])
@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_weights_of_a_file_are_used_for_any_number_of_channels(tmp_path, name, num_channels):
    path = tmp_path / "weights.pth"
    model = timm.create_model("test_resnet") if name.startswith("timm/") else torchvision.models.resnet18()
    torch.save(model.state_dict(), path)
    network, _ = build_backbone(name, "imagenet", num_channels, weights=str(path))
    expected = model.state_dict()
    for key, value in network.state_dict().items():
        if value.ndim == 4 and value.shape[1] == num_channels and "conv1" in key and "layer" not in key:
            adapted = adapt_input_conv(num_channels, expected[key])
            torch.testing.assert_close(
                value, adapted if value.shape != expected[key].shape else expected[key]
            )
        else:
            assert torch.equal(value, expected[key]), key


@pytest.mark.usefixtures("quick_start")
def test_old_files_of_densenet_fit(tmp_path):
    path = tmp_path / "densenet.pth"
    state = torchvision.models.densenet121().state_dict()
    # As torchvision's published files name them: norm.1 instead of norm1, and no counters.
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: value
        for key, value in state.items()
        if "num_batches" not in key
    }
    torch.save(old, path)
    network, _ = build_backbone("densenet121", "imagenet", weights=str(path), image_size=32)
    assert torch.equal(
        network.features.denseblock1.denselayer1.conv2.weight,
        state["features.denseblock1.denselayer1.conv2.weight"],
    )


@pytest.mark.usefixtures("quick_start")
def test_auxiliary_classifiers_in_a_file_are_left_out(tmp_path):
    path = tmp_path / "googlenet.pth"
    state = torchvision.models.googlenet(aux_logits=True, init_weights=True).state_dict()
    torch.save(state, path)
    network, _ = build_backbone("googlenet", weights=str(path))
    assert any(key.startswith("aux") for key in state)
    assert torch.equal(network.conv2.conv.weight, state["conv2.conv.weight"])


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("name", ["levit_128s", "repvit_m0_9"])
def test_a_classifier_of_several_layers_in_a_file_of_timm_is_left_out(tmp_path, name):
    path = tmp_path / "weights.pth"
    state = timm.create_model(name).state_dict()
    torch.save(state, path)
    network, _ = build_backbone(f"timm/{name}", "imagenet", weights=str(path))
    assert any(key.startswith("head") and "bn" in key for key in state)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.usefixtures("quick_start")
def test_of_a_head_of_timm_only_the_classifier_is_left_out(tmp_path):
    path = tmp_path / "weights.pth"
    state = timm.create_model("test_convnext").state_dict()
    torch.save({key: value for key, value in state.items() if key != "head.norm.weight"}, path)
    with pytest.raises(ValueError, match=r"must fit timm/test_convnext, .*Missing key.*head\.norm\.weight"):
        build_backbone("timm/test_convnext", "imagenet", weights=str(path))


@pytest.mark.usefixtures("quick_start")
def test_the_positions_of_a_transformer_are_interpolated_to_the_image_size(tmp_path):
    path = tmp_path / "vit.pth"
    torch.save(torchvision.models.vit_b_32(image_size=96).state_dict(), path)
    network, _ = build_backbone("vit_b_32", "imagenet", weights=str(path), image_size=64)
    assert network.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)


@pytest.mark.usefixtures("quick_start")
def test_a_file_of_timm_gives_the_features_that_timm_gives_and_tells_of_a_stranger(tmp_path):
    path = tmp_path / "weights.pth"
    reference = timm.create_model("tf_efficientnet_lite0")
    torch.save(reference.state_dict(), path)
    network, num_features = build_backbone("timm/tf_efficientnet_lite0", "imagenet", weights=str(path))
    reference.reset_classifier(0)
    images = torch.rand(2, 3, 64, 64)
    assert num_features == 1280
    assert torch.equal(network.eval()(images), reference.eval()(images))
    assert "state_dict" not in network.pretrained_cfg
    with pytest.raises(ValueError, match=r"weights must fit timm/tf_efficientnet_lite1, .*Missing key"):
        build_backbone("timm/tf_efficientnet_lite1", "imagenet", weights=str(path))


def test_entries_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    state = torchvision.models.resnet18().state_dict()
    del state["layer1.0.bn1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    torch.save(state, path)
    with pytest.raises(
        ValueError, match=r"weights must fit resnet18, .*layer1\.0\.bn1\.weight.*layer9\.weight"
    ):
        build_backbone("resnet18", weights=str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "backbone.weights must be an existing file, got '.*weights.pth'"),
        (b"not a pickle", "backbone.weights must be a .safetensors or .pth file of tensors, got"),
        ({"state_dict": {}}, "backbone.weights must hold a state dict, tensors by name, got"),
        ({}, "backbone.weights must hold a state dict"),
        ({"epoch": Path("a class")}, "backbone.weights must be a .safetensors or .pth file of tensors, got"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        build_backbone("resnet18", weights=str(path))


def test_without_a_network_the_error_says_which_file_of_torchvision_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", _unreachable)
    message = (
        r"backbone.pretrained must find the file resnet18-f37072fd.pth, got .*unreachable.*; "
        rf"download https://.* into {tmp_path}/hub/checkpoints, or use --params "
        r"stage1.backbone.pretrained=false,stage1.backbone.weights=<its path>"
    )
    with pytest.raises(ValueError, match=message):
        build_backbone("resnet18", pretrained=True)


def test_without_a_network_the_error_says_which_file_of_timm_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = (
        "must find the file model.safetensors of https://huggingface.co/timm/test_resnet.*backbone.weights"
    )
    with pytest.raises(ValueError, match=message):
        build_backbone("timm/test_resnet", "imagenet", pretrained=True)


def _unreachable(*_args, **_kwargs):
    raise OSError("unreachable")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet19"},
            "backbone.name must be one of resnet_narrow, .*, got 'resnet19'; did you mean 'resnet1",
        ),
        ({"name": "timm/resnet18x"}, "got 'timm/resnet18x'; did you mean 'timm/resnet18'"),
        ({"name": "timm/resnet18.a9_in1k"}, "did you mean 'timm/resnet18.a[123]_in1k'"),
        (
            {"name": "resnet18", "stem": "tiny"},
            "backbone.stem must be a known stem, got 'tiny'; known are small_image, imagenet",
        ),
        ({"name": "resnet_narrow", "stem": "tiny"}, "backbone.stem must be a known stem, got 'tiny'"),
        (
            {"name": "vit_b_16"},
            "backbone.stem must be imagenet for vit_b_16, got 'small_image', but it is made for",
        ),
        ({"name": "timm/test_vit"}, "backbone.stem must be imagenet for timm/test_vit, got 'small_image'"),
        (
            {"name": "timm/convmixer_768_32"},
            "backbone.stem must be imagenet for .*, but its patches are 7 pixels",
        ),
        (
            {"name": "inception_v3", "stem": "imagenet", "image_size": 32},
            "data_prep.image_size must suit inception_v3 with the imagenet stem, got 32 ",
        ),
        (
            {"name": "vit_b_32", "stem": "imagenet", "image_size": 48},
            r"data_prep.image_size must suit vit_b_32, got 48 \(Input shape indivisible by patch size",
        ),
        (
            {"name": "resnet_narrow", "pretrained": True},
            "stage1.backbone.pretrained must be false for resnet_narrow",
        ),
        ({"name": "timm/resnet10d", "pretrained": True}, "backbone.name must be one of"),
        (
            {"name": "timm/vit_base_patch16_18x2_224", "stem": "imagenet", "pretrained": True},
            "got True, but timm has no weights for it; use --params stage1.backbone.pretrained=false",
        ),
        (
            {"name": "resnet18", "pretrained": True, "weights": "a.pth"},
            "pretrained must be false if stage1.backbone.weights is set, got 'a.pth'",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(**arguments)


def test_a_pretrained_backbone_is_restored_from_its_checkpoint_without_its_file(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_vit", img_size=32).state_dict(), path)
    description = {
        "backbone": "timm/test_vit",
        "stem": "imagenet",
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "hidden_dim": 4,
        "dim": 3,
        "image_size": 32,
    }
    model = build_contrastive_model(**description, weights=str(path)).eval()
    path.unlink()
    checkpoint = NamedTensors(model.state_dict(), {"model": {"kind": "contrastive", **description}})
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(restore_model(checkpoint)(images)["embedding"], model(images)["embedding"])


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("name", "num_channels", "expected"),
    [
        # Deng et al. 2009's training images, as He et al. and after them nearly all take them.
        ("resnet18", 3, IMAGENET),
        ("timm/resnet18", 3, IMAGENET),
        ("timm/resnet18.a1_in1k", 3, IMAGENET),
        # From -1 to 1.
        ("efficientnet_v2_l", 3, ([0.5] * 3, [0.5] * 3)),
        ("timm/vit_base_patch16_224", 3, ([0.5] * 3, [0.5] * 3)),
        # These change ImageNet's to their own inside, if there are three channels.
        ("inception_v3", 3, IMAGENET),
        ("googlenet", 1, ([0.5], [0.5])),
        ("timm/inception_v3", 1, ([0.5], [0.5])),
        ("resnet18", 1, ([1.347 / 3], [0.678 / 3])),
        ("timm/resnet18", 1, ([1.347 / 3], [0.678 / 3])),
    ],
)
def test_published_weights_expect_the_normalisation_they_were_trained_with(name, num_channels, expected):
    mean, std = published_statistics(name, num_channels)
    assert mean == pytest.approx(expected[0])
    assert std == pytest.approx(expected[1])


def test_weights_that_nobody_publishes_expect_nothing():
    assert published_statistics("resnet_narrow", 3) is None


@pytest.mark.parametrize("name", ["googlenet", "timm/test_resnet"])
def test_a_grey_image_passes_a_loaded_network_nearly_as_the_same_in_three_colours(name, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(build_backbone(name, "imagenet")[0].state_dict(), path)
    grey, inputs = torch.rand(4, 1, 64, 64), []
    for num_channels in (1, 3):
        loaded, _ = build_backbone(name, "imagenet", num_channels, weights=str(path), image_size=64)
        input_convolution(loaded).register_forward_hook(lambda *hooked: inputs.append(hooked[2]))
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in published_statistics(name, num_channels))
        with torch.inference_mode():
            loaded.eval()((grey.expand(-1, num_channels, -1, -1) - mean) / std)
    one, three = inputs
    # The spreads of the three colours differ by 1 %.
    assert (one - three).norm() < 0.05 * three.norm()


def test_a_network_that_reads_versions_is_restored_from_bare_tensors():
    description = {
        "kind": "contrastive",
        "backbone": "mnasnet0_5",
        "stem": "small_image",
        "mean": [0.5],
        "std": [1.0],
    }
    description |= {"hidden_dim": 4, "dim": 3}
    tensors = dict(build_model(description).state_dict())
    restored = restore_model(NamedTensors(tensors, {"model": description}))
    assert all(torch.equal(value, tensors[name]) for name, value in restored.state_dict().items())


@pytest.mark.parametrize("name", ["resnet_narrow", "resnet18", "timm/resnet18", "timm/resnet18.a1_in1k"])
def test_names_of_all_three_kinds_are_known(name):
    require_backbone(name)
    assert BackboneParameters(name=name, stem="imagenet", pretrained=False, weights=None).name == name


def test_parameters_take_published_weights_or_a_file_but_not_both():
    with pytest.raises(
        ValueError, match=r"pretrained must be false where weights is set, got true and 'a.pth'"
    ):
        BackboneParameters(name="resnet_narrow", stem="small_image", pretrained=True, weights="a.pth")


def test_importing_the_module_imports_neither_torchvision_nor_timm():
    code = (
        "import sys; from supcon_pipeline.core.models import backbones; "
        "backbones.require_backbone('resnet_narrow'); "
        "print([name for name in ('torchvision', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
