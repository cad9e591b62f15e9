"""What all pages share: templates and embedded pictures."""

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def open_templates(**options: Any) -> Environment:
    """The templates; a missing value is an error, and in `.html` templates all values are escaped.

    Args:
        **options: options of `jinja2.Environment`.
    """
    return Environment(
        loader=PackageLoader("supcon_pipeline.core.pages", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        **options,
    )


def embed_png(content: bytes) -> str:
    """A PNG file as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
