"""Train image encoders by supervised contrastive learning, as Kedro pipelines."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supcon_pipeline.core.inference.image_encoder import ImageEncoder

__version__ = "0.1.0"


def load_encoder(
    project_path: str | Path = ".", env: str | None = None, run_id: str | None = None, *, trust: bool = False
) -> "ImageEncoder":
    """The encoder of a run, with its classifier if there is one; or a model from a file.

    Args:
        project_path: folder of the project, or any other with the `data/` of runs, or with a `conf/` that
            says in which bucket they are; or a file: the `.safetensors` of an encoder, or an exported `.onnx`
            or `.pt2`.
        env: the experiment; where left out, the default one.
        run_id: the run; where left out, that of `SUPCON_RUN_ID`, or else the newest that has an encoder.
        trust: whether code in the file may be run; PyTorch runs code that is in a `.pt2`. The other kinds of
            file hold none.

    Raises:
        InputError: where the path has neither runs nor a model, the file is broken, or it is a `.pt2`
            that is not trusted.
        click.ClickException: where the run does not exist or has no encoder.

    Example:
        encoder = load_encoder("my_project", env="images")
        encoder.classify(["photo.jpg"])  # [Prediction(class_name='cat', probability=0.98)]
    """
    from supcon_pipeline.packaged import choose_log

    if Path(project_path).is_dir():
        choose_log()
    from supcon_pipeline.loading import load_encoder as load

    return load(project_path, env, run_id, trust)
