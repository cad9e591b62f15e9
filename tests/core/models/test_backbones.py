import subprocess
import sys

import pytest
import timm
import torch
from tests.core.models.families import FAMILIES, input_convolution

from supcon_pipeline.core.models.backbones import (
    build_backbone,
    has_published_weights,
    published_statistics,
    require_backbone,
)
from supcon_pipeline.core.models.encoder import build_contrastive_model, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors
from supcon_pipeline.core.parameters.models import BackboneParameters

TRANSFORMERS = {
    "vit_b_32": (64, 768),
    "timm/test_vit": (48, 64),
    "timm/vit_tiny_patch16_224": (32, 192),
    # Torchvision's MaxViT has windows of 7 x 7 places and so needs multiples of 224 pixels.
    "timm/maxvit_rmlp_pico_rw_256": (64, 256),
}


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(("name", "size", "width"), [(k, *v) for k, v in (FAMILIES | TRANSFORMERS).items()])
def test_a_network_as_published_gives_a_row_of_its_width_for_one_image(name, size, width):
    network, num_features = build_backbone(name, "imagenet", image_size=size)
    assert network.training
    with torch.inference_mode():
        features = network.eval()(torch.rand(1, 3, size, size))
    assert features.shape == (1, num_features) == (1, width)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet19"},
            "must be one of resnet_narrow, .*, got 'resnet19'; did you mean 'resnet9' or 'resnet18'",
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


@pytest.mark.parametrize(
    ("name", "is_published"),
    [
        ("resnet_narrow", False),
        ("resnet18", True),
        ("timm/resnet18", True),
        # A network that timm has without weights.
        ("timm/coatnet_0_224", False),
    ],
)
def test_weights_are_suggested_only_where_they_are_published(name: str, is_published: bool) -> None:
    assert has_published_weights(name) is is_published
