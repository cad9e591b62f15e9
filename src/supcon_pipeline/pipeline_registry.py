"""All pipelines by name."""

from functools import cache

from kedro.pipeline import Pipeline

from supcon_pipeline.pipelines import (
    baseline,
    data_prep,
    enrol,
    evaluation,
    export,
    index,
    inference,
    lr_finder,
    out_of_distribution,
    published,
    stage1,
    stage2,
    swa,
    visualization,
)
from supcon_pipeline.pipelines.lr_finder.pipeline import STAGES, create_range_test
from supcon_pipeline.pipelines.swa.pipeline import MODELS, create_average

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
    pipelines = {
        "data_prep": data_prep.create_pipeline(),
        "stage1": stage1.create_pipeline(),
        "swa": swa.create_pipeline(),
        "stage2": stage2.create_pipeline(),
        "published": published.create_pipeline(),
        "baseline": baseline.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
        "index": index.create_pipeline(),
        "visualization": visualization.create_pipeline(),
    }
    # The range test of stage 1 needs no encoder, that of stage 2 does.
    beside = {
        **{f"{stage}_swa": create_average(stage) for stage in MODELS},
        **{f"{stage}_lr_finder": create_range_test(stage) for stage in STAGES},
        "lr_finder": lr_finder.create_pipeline(),
        "export": export.create_pipeline(),
        "enrol": enrol.create_pipeline(),
        "inference": inference.create_pipeline(),
        "out_of_distribution": out_of_distribution.create_pipeline(),
    }
    found = {**pipelines, **beside, "__default__": sum(pipelines.values(), Pipeline([]))}
    return {name: _with_places(pipeline) for name, pipeline in found.items()}


def _with_places(pipeline: Pipeline) -> Pipeline:
    """The pipeline with a tag for each node, `gpu` or `cpu`, by which an orchestrator can place it."""
    return Pipeline([node.tag("gpu" if node.func.__name__ in ON_GPU else "cpu") for node in pipeline.nodes])
