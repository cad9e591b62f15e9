import torch
from torch import nn

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
