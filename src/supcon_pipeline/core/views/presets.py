"""Policies by name, for `transforms: <name>` in the parameters, or as an entry `- <name>` of that list.

| name | images | what it does |
|---|---|---|
| `small_image` | about 32 pixels, in colour | crop, flip, colour jitter, sometimes grayscale |
| `photograph` | 100 pixels and more, in colour | the same plus blur |
| `crop_and_flip` | any | crop and flip only: for a classifier, which jitter confuses |

Crops have the size of the prepared images. If left and right matter (digits, letters), give a list without
`HorizontalFlip`.

Source:
    Crop, flip, jitter and grayscale with these numbers: the code of Khosla et al. 2020 (arXiv:2004.11362)
    for CIFAR, based on Chen et al. 2020 (SimCLR, arXiv:2002.05709, appendix A), whose jitter is twice as
    strong and whose crops go down to 8 % of the area. Blur: SimCLR, appendix A, with a kernel as wide as
    sigma requires. `crop_and_flip`: the linear evaluation of both.
"""

from typing import Any

from supcon_pipeline.core.messages import InputError, show, suggest

_CROP: dict[str, Any] = {"name": "RandomResizedCrop", "args": {"scale": [0.2, 1.0]}}
_FLIP: dict[str, Any] = {"name": "HorizontalFlip", "args": {"p": 0.5}}
_JITTER: dict[str, Any] = {
    "name": "ColorJitter",
    "args": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
}
_GREY: dict[str, Any] = {"name": "ToGray", "args": {"p": 0.2}}
_BLUR: dict[str, Any] = {
    "name": "GaussianBlur",
    # 0 makes the kernel as wide as sigma requires.
    "args": {"blur_limit": 0, "sigma_limit": [0.1, 2.0], "p": 0.5},
}
PRESETS: dict[str, list[dict[str, Any]]] = {
    "small_image": [_CROP, _FLIP, _JITTER, _GREY],
    "photograph": [_CROP, _FLIP, _JITTER, _GREY, _BLUR],
    "crop_and_flip": [_CROP, _FLIP],
}


def preset(name: str) -> list[dict[str, Any]]:
    """The policy of a preset.

    Raises:
        InputError: if the name is unknown. The message begins with `must`, for the caller to put the name of
            the parameter in front.
    """
    if name not in PRESETS:
        raise InputError(
            f"must be a list or the name of a preset, got {show(name)}; {suggest(name, PRESETS)}"
        )
    return PRESETS[name]


def expand_presets(transforms: Any) -> Any:
    """The transforms with the name of each preset replaced by its policy; anything else is unchanged.

    Raises:
        InputError: if a name is unknown.
    """
    if isinstance(transforms, str):
        return preset(transforms)
    if not isinstance(transforms, list):
        return transforms
    policies = [preset(entry) if isinstance(entry, str) else [entry] for entry in transforms]
    return [spec for policy in policies for spec in policy]
