"""What decides whether two trainings are the same."""

from importlib.metadata import version

from supcon_pipeline.core.sources import source_hash

# Another version of any of these may change views, weights or steps.
_NUMERIC_LIBRARIES = ("albumentations", "numpy", "timm", "torch", "torchvision")


def code_hash() -> str:
    """SHA-256 over every source file of `core` that training imports, as 64 hexadecimal digits."""
    return source_hash("training")


def library_versions() -> dict[str, str]:
    """Versions, by name, of the libraries that numbers depend on."""
    import cv2

    # OpenCV is distributed under several names.
    return {"cv2": cv2.__version__, **{name: version(name) for name in _NUMERIC_LIBRARIES}}
