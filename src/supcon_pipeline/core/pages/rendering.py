"""What the pages share: where their templates are, and how a picture stands in one."""

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def open_templates(**options: Any) -> Environment:
    """Templates that refuse values which are missing and, ending in `.html`, escape all that they are given.

    Args:
        **options: of the `jinja2.Environment`.
    """
    return Environment(
        loader=PackageLoader("supcon_pipeline.core.pages", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        **options,
    )


def embed_png(content: bytes) -> str:
    """The address of a picture that is inside the page."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
