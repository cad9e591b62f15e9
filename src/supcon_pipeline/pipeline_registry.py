"""All pipelines by name."""

from kedro.pipeline import Pipeline

from supcon_pipeline.pipelines.data_prep.pipeline import create_pipeline as create_data_prep
from supcon_pipeline.pipelines.evaluation.pipeline import create_pipeline as create_evaluation
from supcon_pipeline.pipelines.stage1.pipeline import create_pipeline as create_stage1
from supcon_pipeline.pipelines.stage2.pipeline import create_pipeline as create_stage2
from supcon_pipeline.pipelines.swa.pipeline import create_pipeline as create_swa
from supcon_pipeline.pipelines.visualization.pipeline import create_pipeline as create_visualization


def register_pipelines() -> dict[str, Pipeline]:
    """The pipelines in the order of the data; `__default__` is all of them."""
    pipelines = {
        "data_prep": create_data_prep(),
        "stage1": create_stage1(),
        "swa": create_swa("stage1", "encoder") + create_swa("stage2", "classifier"),
        "stage2": create_stage2(),
        "evaluation": create_evaluation(),
        "visualization": create_visualization(),
    }
    return {**pipelines, "__default__": sum(pipelines.values(), Pipeline([]))}
