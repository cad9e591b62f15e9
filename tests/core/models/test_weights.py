from pathlib import Path

import pytest
import timm
import torch
import torchvision
from timm.models import adapt_input_conv

from supcon_pipeline.core.models.backbones import build_backbone
from supcon_pipeline.core.models.encoder import build_model, restore_model
from supcon_pipeline.core.named_tensors import NamedTensors


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
        ({"epoch": Path("a class")}, "backbone.weights must hold tensors alone, got"),
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


def _unreachable(*_args, **_kwargs):
    raise OSError("unreachable")


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
