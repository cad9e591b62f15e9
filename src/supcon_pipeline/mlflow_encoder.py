"""The encoder of a run as a model of MLflow, which runs this file when it loads the model."""

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from supcon_pipeline import load_encoder


class EncoderModel(PythonModel):
    """Gives the embedding of each of some image files, which it takes as bytes."""

    def load_context(self, context: Any) -> None:
        """Read the weights that lie beside this file."""
        self.encoder = load_encoder(context.artifacts["encoder"])

    def predict(self, model_input: list[bytes]) -> Any:
        """Embeddings of unit length, float32, in the order of the images."""
        return self.encoder.embed(model_input)


set_model(EncoderModel())
