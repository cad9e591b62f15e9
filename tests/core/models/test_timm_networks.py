import pytest
import timm
import torch

from supcon_pipeline.core.models.backbones import build_backbone


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
    with pytest.raises(
        ValueError, match=r"must fit timm/test_convnext, got a file without head\.norm\.weight"
    ):
        build_backbone("timm/test_convnext", "imagenet", weights=str(path))


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
    with pytest.raises(
        ValueError, match=r"weights must fit timm/tf_efficientnet_lite1, got a file without blocks"
    ):
        build_backbone("timm/tf_efficientnet_lite1", "imagenet", weights=str(path))


def test_without_a_network_the_error_says_which_file_of_timm_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = (
        "must find the file model.safetensors of https://huggingface.co/timm/test_resnet.*backbone.weights"
    )
    with pytest.raises(ValueError, match=message):
        build_backbone("timm/test_resnet", "imagenet", pretrained=True)
