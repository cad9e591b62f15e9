"""The gallery of new images, a self-contained page."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from supcon_pipeline.core.pages.rendering import embed_png, open_templates


def render_gallery(
    predictions: pd.DataFrame,
    images: UInt8[np.ndarray, "n h w c"],
    train_images: UInt8[np.ndarray, "m h w c"],
    samples: pd.DataFrame,
    unreadable: pd.DataFrame,
    run_id: str,
    max_images: int,
) -> str:
    """The HTML of the gallery.

    Args:
        predictions: the predictions of `inference`, one row per image.
        images: the new images, packed, in the same order.
        train_images: all packed images of the run that trained, in the order of `samples`.
        samples: samples of that run.
        unreadable: `image` and `reason` of each image that could not be read.
        run_id: the run that predicts.
        max_images: most images to show.
    """
    rows = pd.Series(np.arange(len(samples)), index=samples["id"])
    cards = [
        {**row, "picture": encode_picture(images[number]), "nearest": _nearest(row, train_images, rows)}
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


def _nearest(row: dict[Any, Any], train_images: np.ndarray, rows: pd.Series) -> list[dict[str, Any]]:
    ranks = [rank for rank in range(1, len(row)) if f"nearest_{rank}_id" in row]
    return [
        {
            "id": row[f"nearest_{rank}_id"],
            "class_name": row[f"nearest_{rank}_class"],
            "similarity": row[f"nearest_{rank}_similarity"],
            "picture": encode_picture(train_images[rows[row[f"nearest_{rank}_id"]]]),
        }
        for rank in ranks
    ]
