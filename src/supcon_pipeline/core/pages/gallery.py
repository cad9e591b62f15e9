"""The gallery of new images, a self-contained page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from supcon_pipeline.core.data.encoded_images import StoredImages
from supcon_pipeline.core.pages.rendering import embed_png, open_templates


def render_gallery(
    predictions: pd.DataFrame,
    images: UInt8[np.ndarray, "n h w c"],
    known: Sequence[tuple[Iterable[str], StoredImages]],
    unreadable: pd.DataFrame,
    run_id: str,
    max_images: int,
) -> str:
    """The HTML of the gallery.

    Args:
        predictions: the predictions of `inference`, one row per image.
        images: the new images, packed, in the same order.
        known: the images among which they were searched: ids, and packed images in the same order.
        unreadable: `image` and `reason` of each image that could not be read.
        run_id: the run that predicts.
        max_images: most images to show.
    """
    places = {name: (part, row) for names, part in known for row, name in enumerate(names)}
    cards = [
        {**row, "picture": encode_picture(images[number]), "nearest": _nearest(row, places)}
        for number, row in enumerate(predictions.head(max_images).to_dict("records"))
    ]
    template = open_templates().get_template("gallery.html")
    return template.render(
        cards=cards, num_images=len(predictions), unreadable=unreadable.to_dict("records"), run_id=run_id
    )


def encode_picture(image: UInt8[np.ndarray, "h w c"]) -> str:
    """The image as a data URL of a PNG file."""
    import cv2

    colors = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR) if image.shape[-1] == 3 else image
    return embed_png(cv2.imencode(".png", colors)[1].tobytes())


def _nearest(row: dict[Any, Any], places: Mapping[str, tuple[StoredImages, int]]) -> list[dict[str, Any]]:
    """The nearest known images of a new one, with their pictures."""
    ranks = [rank for rank in range(1, len(row)) if f"nearest_{rank}_id" in row]
    return [
        {
            "id": row[f"nearest_{rank}_id"],
            "class_name": row[f"nearest_{rank}_class"],
            "similarity": row[f"nearest_{rank}_similarity"],
            "picture": encode_picture(images[place]),
        }
        for rank in ranks
        for images, place in [places[row[f"nearest_{rank}_id"]]]
    ]
