"""The picture in the README: t-SNE of the test images of the newest run, contrastive beside baseline.

python docs/pictures/embedding_map.py

Run it from the folder of the project, after `make run`. It writes embedding_map.png beside this file.
"""

from io import BytesIO
from pathlib import Path

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from PIL import Image

from supcon_pipeline.core.figures.maps import draw_tsne

# Smaller than in the report, so that the names can be read at the width of a page.
INCHES, DPI, NUM_COLORS = (9.0, 5.3), 140, 64


def main() -> None:
    """Draw the test panels of the map and write them with few colours, which keeps the file small."""
    project = Path.cwd()
    bootstrap_project(project)
    with KedroSession.create(project) as session:
        catalog = session.load_context().catalog
    points, card = catalog.load("tsne_points"), catalog.load("dataset_card")
    num_images = {"test": sum(card["counts"]["test"].values())}
    figure = draw_tsne(points[points["split"] == "test"], card["class_names"], num_images)
    figure.set_size_inches(INCHES)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    small = Image.open(picture).convert("RGB").quantize(NUM_COLORS, dither=Image.Dither.NONE)
    small.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
