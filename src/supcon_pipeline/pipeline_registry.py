"""All pipelines by name."""

from functools import cache

from kedro.pipeline import Pipeline

from supcon_pipeline.pipelines.baseline.pipeline import create_pipeline as create_baseline
from supcon_pipeline.pipelines.data_prep.pipeline import create_pipeline as create_data_prep
from supcon_pipeline.pipelines.enrol.pipeline import create_pipeline as create_enrol
from supcon_pipeline.pipelines.evaluation.pipeline import create_pipeline as create_evaluation
from supcon_pipeline.pipelines.export.pipeline import create_pipeline as create_export
from supcon_pipeline.pipelines.index.pipeline import create_pipeline as create_index
from supcon_pipeline.pipelines.inference.pipeline import create_pipeline as create_inference
from supcon_pipeline.pipelines.lr_finder.pipeline import create_pipeline as create_lr_finder
from supcon_pipeline.pipelines.out_of_distribution.pipeline import create_pipeline as create_outside
from supcon_pipeline.pipelines.published.pipeline import create_pipeline as create_published
from supcon_pipeline.pipelines.stage1.pipeline import create_pipeline as create_stage1
from supcon_pipeline.pipelines.stage2.pipeline import create_pipeline as create_stage2
from supcon_pipeline.pipelines.swa.pipeline import create_pipeline as create_swa
from supcon_pipeline.pipelines.visualization.pipeline import create_pipeline as create_visualization

# The functions of the nodes that train, embed or rank images: on a GPU, where there is one.
ON_GPU = frozenset(
    {
        "average_checkpoints",
        "embed_enrolled_images",
        "embed_new_images",
        "embed_outside_images",
        "embed_samples",
        "embed_start",
        "pretrain_encoder",
        "score_features",
        "score_pixels",
        "score_published",
        "score_verification",
        "score_without_near_duplicates",
        "trace_stage1_loss",
        "trace_stage2_loss",
        "train_baseline",
        "train_linear_classifier",
    }
)


def register_pipelines() -> dict[str, Pipeline]:
    """All pipelines, in the order of the data; `__default__` leaves out those for before and after it."""
    return dict(_pipelines())


@cache
def whole_graph() -> Pipeline:
    """All pipelines as one."""
    return sum(_pipelines().values(), Pipeline([]))


@cache
def _pipelines() -> dict[str, Pipeline]:
    """The pipelines, which a session needs four times."""
    models = {"stage1": "encoder", "stage2": "classifier", "baseline": "baseline_model"}
    averages = {f"{stage}_swa": create_swa(stage, model) for stage, model in models.items()}
    pipelines = {
        "data_prep": create_data_prep(),
        "stage1": create_stage1(),
        "swa": sum(averages.values(), Pipeline([])),
        "stage2": create_stage2(),
        "published": create_published(),
        "baseline": create_baseline(),
        "evaluation": create_evaluation(),
        "index": create_index(),
        "visualization": create_visualization(),
    }
    # The range test of stage 1 needs no encoder, that of stage 2 does.
    range_tests = {f"{stage}_lr_finder": create_lr_finder(stage) for stage in ("stage1", "stage2")}
    beside = {
        **averages,
        **range_tests,
        "lr_finder": sum(range_tests.values(), Pipeline([])),
        "export": create_export(),
        "enrol": create_enrol(),
        "inference": create_inference(),
        "out_of_distribution": create_outside(),
    }
    found = {**pipelines, **beside, "__default__": sum(pipelines.values(), Pipeline([]))}
    return {name: _with_places(pipeline) for name, pipeline in found.items()}


def _with_places(pipeline: Pipeline) -> Pipeline:
    """The pipeline with a tag for each node, `gpu` or `cpu`, by which an orchestrator can place it."""
    return Pipeline([node.tag("gpu" if node.func.__name__ in ON_GPU else "cpu") for node in pipeline.nodes])
