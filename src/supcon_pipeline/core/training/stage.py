"""What a stage trains, and how: its parts, built from its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from supcon_pipeline.core.data.images import LabelledImages, spread_evenly
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.optim.averaging import build_ema
from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.schedules import build_schedule
from supcon_pipeline.core.parameters.stages import TrainingParameters
from supcon_pipeline.core.training.identity import code_hash, library_versions
from supcon_pipeline.core.training.precision import choose_precision
from supcon_pipeline.core.training.state import Criterion, Metrics, Training
from supcon_pipeline.core.views.loading import Batch, ViewDataset, build_loader
from supcon_pipeline.core.views.mixing import Mixing
from supcon_pipeline.core.views.policy import ViewPolicy


@dataclass(frozen=True)
class Stage:
    """What is trained, and how.

    Args:
        title: for people.
        model: with its first weights.
        criterion: the loss of the model's output for a batch.
        num_views: of each image in a batch.
        validate: the metrics of a model.
        params: of the training.
        metadata: what the checkpoints say of themselves.
        origin: what the training is of beside its parameters, such as hashes of data and encoder.
        state_of: which weights are kept.
        micro_batch_size: images per forward pass, where the batch does not fit.
        collapse_loss: the loss of a batch of labels and views if all images had the same projection.
    """

    title: str
    model: nn.Module
    criterion: Criterion
    num_views: int
    validate: Callable[[nn.Module], Metrics]
    params: TrainingParameters
    metadata: dict[str, Any]
    origin: Mapping[str, Any]
    state_of: Callable[[nn.Module], Mapping[str, Tensor]] = nn.Module.state_dict
    micro_batch_size: int | None = None
    collapse_loss: Callable[[Tensor, int], float] | None = None

    def identity(self) -> dict[str, Any]:
        """What a training must share with this one for its progress to be of use."""
        # How often something is done and by how many changes no weight.
        unrelated: Any = {"progress_minutes": True, "validation_batch_size": True, "loader": {"num_workers"}}
        weights = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        return {
            "stage": self.title,
            "parameters": self.params.model_dump(mode="json", exclude=unrelated),
            **self.origin,
            "first_weights": fingerprint(NamedTensors(weights)),
            "device": pick_device().type,
            "code_hash": code_hash(),
            "libraries": library_versions(),
        }


def build_training(stage: Stage, data: LabelledImages) -> Training:
    """Model, loader, optimizer, schedule and average of a stage, before the first step."""
    params, device = stage.params, pick_device()
    model = stage.model.to(device)
    policy, mixing = build_views(params, stage.num_views, data)
    loader = build_loader(
        data.images,
        data.labels,
        data.indices("train"),
        policy,
        **params.loader.model_dump(),
        seed=params.seed,
        mixing=mixing,
    )
    optimizer = build_optimizer(model, **params.optimizer.model_dump())
    schedule = build_schedule(optimizer, len(loader), **params.schedule.model_dump())
    ema = build_ema(model, params.ema.decay_per_epoch, len(loader)) if params.ema else None
    if params.compile:
        # After the average was copied, which is only ever evaluated.
        model.compile()
    return Training(
        model,
        stage.criterion,
        loader,
        optimizer,
        schedule,
        choose_precision(params.precision, device),
        ema=ema,
        is_raw_validated=params.ema is not None and params.ema.is_raw_validated,
        micro_batch_size=stage.micro_batch_size,
        max_grad_norm=params.max_grad_norm,
        collapse_loss=stage.collapse_loss,
    )


def build_views(
    params: TrainingParameters, num_views: int, data: LabelledImages
) -> tuple[ViewPolicy, Mixing | None]:
    """How the views of a training are made and mixed, tried on the shape of its images."""
    specs = [spec.model_dump() for spec in params.transforms]
    policy = ViewPolicy(specs, num_views, data.images.shape[1:])
    mixing = Mixing(**params.mixing.model_dump(), num_classes=data.num_classes) if params.mixing else None
    return policy, mixing


def sample_views(
    params: TrainingParameters, num_views: int, data: LabelledImages, num_images: int = 8
) -> tuple[np.ndarray, Batch]:
    """Some training images from as many classes as there are, and the batch that training makes of them."""
    train = data.indices("train")
    by_class = train[np.argsort(data.labels[train], kind="stable")]
    chosen = spread_evenly(by_class, num_images)
    dataset = ViewDataset(data.images, data.labels, *build_views(params, num_views, data))
    return data.images[chosen], dataset[params.seed, chosen]
