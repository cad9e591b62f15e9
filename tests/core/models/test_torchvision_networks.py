import pytest
import torch
import torchvision

from supcon_pipeline.core.models.backbones import build_backbone


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


@pytest.mark.usefixtures("quick_start")
def test_auxiliary_classifiers_in_a_file_are_left_out(tmp_path):
    path = tmp_path / "googlenet.pth"
    state = torchvision.models.googlenet(aux_logits=True, init_weights=True).state_dict()
    torch.save(state, path)
    network, _ = build_backbone("googlenet", weights=str(path))
    assert any(key.startswith("aux") for key in state)
    assert torch.equal(network.conv2.conv.weight, state["conv2.conv.weight"])


@pytest.mark.usefixtures("quick_start")
def test_the_positions_of_a_transformer_are_interpolated_to_the_image_size(tmp_path):
    path = tmp_path / "vit.pth"
    torch.save(torchvision.models.vit_b_32(image_size=96).state_dict(), path)
    network, _ = build_backbone("vit_b_32", "imagenet", weights=str(path), image_size=64)
    assert network.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)
