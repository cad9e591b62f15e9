"""What makes two trainings the same."""

import hashlib
from importlib.metadata import version
from pathlib import Path

# Another version of one of these may give other views, weights or steps.
_NUMERIC_LIBRARIES = ("albumentations", "numpy", "timm", "torch", "torchvision")


def code_hash() -> str:
    """SHA-256 over the source of the learning library."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of what makes the numbers, by name."""
    import cv2

    # OpenCV comes under several names.
    return {"cv2": cv2.__version__, **{name: version(name) for name in _NUMERIC_LIBRARIES}}
