"""A stage: what it trains and how, and the objects built from its parameters."""

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from supcon_pipeline.core.data.encoded_images import EncodedImages
from supcon_pipeline.core.data.images import LabelledImages, spread_evenly
from supcon_pipeline.core.device import pick_device
from supcon_pipeline.core.messages import InputError
from supcon_pipeline.core.models.encoder import Encoder, require_fitting_views
from supcon_pipeline.core.named_tensors import NamedTensors, fingerprint
from supcon_pipeline.core.optim.averaging import build_ema
from supcon_pipeline.core.optim.blending import StartBlend
from supcon_pipeline.core.optim.freezing import Freezing
from supcon_pipeline.core.optim.groups import BACKBONE
from supcon_pipeline.core.optim.low_rank import merged_state
from supcon_pipeline.core.optim.optimizers import build_optimizer
from supcon_pipeline.core.optim.schedules import build_schedule
from supcon_pipeline.core.parameters.optim import FinetuneParameters
from supcon_pipeline.core.parameters.stages import EncoderTraining, TrainingParameters
from supcon_pipeline.core.ranks import ALONE, Ranks
from supcon_pipeline.core.training.identity import code_hash, library_versions
from supcon_pipeline.core.training.memory import ProjectionMemory
from supcon_pipeline.core.training.precision import Precision, choose_precision
from supcon_pipeline.core.training.single_views import ForwardPasses, require_views_to_normalise
from supcon_pipeline.core.training.small_sets import warn_of_small_sets
from supcon_pipeline.core.training.state import Criterion, Training, Validation
from supcon_pipeline.core.views.loading import Batch, ViewDataset, ViewLoader, build_loader
from supcon_pipeline.core.views.mixing import Mixing
from supcon_pipeline.core.views.policy import ViewPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What is trained, and how.

    Args:
        key: name of the pipeline.
        model: the model with its initial weights.
        criterion: the loss of the model's output for a batch.
        num_views: views of each image in a batch.
        validate: computes the metrics of a model.
        params: all parameters of the training.
        description: the network that is kept, in the form that `build_model` takes.
        origin: what determines the training besides its parameters, such as hashes of data and encoder.
        parameter_group: the group that holds loader and precision, for messages; by default `key`.
        optimizer_group: the group that holds the optimizer, likewise.
        state_of: selects the weights that are kept.
        micro_batch_size: images per forward pass, for batches that do not fit in memory.
        collapse_loss: from labels and number of views, the loss if all images had the same projection.
        collapse_room: how far the loss can fall below that.
        has_positives_by_class: whether an image's positives are the others of its class in the batch.
        view_sizes: height and width of the views in equal parts of the training; if empty, as the images.
        inputs: what the model takes in place of the images, a row for each; without transforms or mixing.
        is_start_validated: whether the initial weights are validated as epoch 0 and may be kept; they are
            worth it where they were trained before.
        memory: projections of earlier batches that the criterion uses.
    """

    key: str
    model: nn.Module
    criterion: Criterion
    num_views: int
    validate: Validation
    params: TrainingParameters
    description: dict[str, Any]
    origin: Mapping[str, Any]
    parameter_group: str = ""
    optimizer_group: str = ""
    state_of: Callable[[nn.Module], Mapping[str, Tensor]] = merged_state
    micro_batch_size: int | None = None
    collapse_loss: Callable[[Tensor, int], float] | None = None
    collapse_room: float = math.inf
    has_positives_by_class: bool = False
    view_sizes: tuple[int, ...] = ()
    inputs: np.ndarray | None = None
    is_start_validated: bool = False
    memory: ProjectionMemory | None = None

    @property
    def group(self) -> str:
        """The group of parameters that holds loader and precision, for messages."""
        return self.parameter_group or self.key

    @property
    def title(self) -> str:
        """The name of the stage for display: `stage 1` for `stage1`."""
        return re.sub(r"(?<=\D)(?=\d)", " ", self.key)

    def parameters(self, exclude: Any = None) -> dict[str, Any]:
        """All parameters of the training, in plain JSON values."""
        return self.params.model_dump(mode="json", exclude=exclude)

    def metadata(self, run_id: str) -> dict[str, Any]:
        """Metadata of the checkpoints and of the model averaged from them."""
        return {
            "model": self.description,
            "run_id": run_id,
            "parameters": self.parameters(),
            **self.origin,
        }

    def identity(self) -> dict[str, Any]:
        """What a saved training must have in common with this one to be resumed."""
        # How often or by how many processes something is done changes no weight. Processes that share a batch
        # change what batch-norm sees, but who comes back to a machine with more GPUs wants to go on.
        unrelated = {
            **dict.fromkeys(("processes", "progress_minutes", "validation_batch_size"), True),
            "loader": {"num_workers"},
        }
        weights = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        return {
            "stage": self.key,
            "parameters": self.parameters(unrelated),
            **self.origin,
            "first_weights": fingerprint(NamedTensors(weights)),
            "device": pick_device().type,
            "code_hash": code_hash(),
            "libraries": library_versions(),
        }


def build_training(stage: Stage, data: LabelledImages, ranks: Ranks = ALONE) -> Training:
    """The model, loader, optimizer, schedule and average of a stage, before the first step.

    Args:
        stage: what to train.
        data: with the images to train on.
        ranks: the processes that share each batch.
    """
    params, device, group = stage.params, pick_device(), stage.group
    model, loader = stage.model.to(device), _build_loader(stage, data, f"{group}.loader.", ranks)
    if stage.inputs is None:
        _warn_of_sizes(params, loader.dataset.policy)
        _fit_to_views(model, loader.dataset.policy, data.images.shape[1:], group)
    finetune = params.finetune if isinstance(params, EncoderTraining) else None
    if stage.inputs is None and not (finetune and finetune.freeze_batch_norm):
        sizes = len(data.indices("train")), stage.num_views, stage.micro_batch_size, ranks.count
        passes = ForwardPasses(params.loader, *sizes)
        require_views_to_normalise(model, loader.dataset.policy.shapes, group, passes)
    optimizer = build_optimizer(model, **params.optimizer.model_dump(), **_rates_by_depth(finetune))
    schedule = build_schedule(optimizer, len(loader), **params.schedule.model_dump())
    loader.planned_epoch = lambda epoch: max(epoch, int(schedule.position / len(loader)))
    ema = build_ema(model, params.ema.decay_per_epoch, len(loader)) if params.ema else None
    known = len(data.indices("train")), data.num_classes, data.has_unseen_classes
    start_share = finetune.start_share(*known) if finetune else 0.0
    blend = StartBlend(model, start_share) if start_share else None
    if params.compile:
        # After what is only evaluated was copied from it.
        model.compile()
    return Training(
        model,
        stage.criterion,
        loader,
        optimizer,
        schedule,
        _choose_precision(params.precision, f"{group}.precision", ranks),
        ema=ema,
        is_raw_validated=params.ema is not None and params.ema.is_raw_validated,
        micro_batch_size=stage.micro_batch_size,
        max_grad_norm=params.max_grad_norm,
        collapse_loss=stage.collapse_loss,
        freezing=_build_freezing(model, finetune) if finetune else None,
        blend=blend,
        memory=stage.memory,
        max_seconds=60 * params.max_minutes if params.max_minutes else None,
    )


def _fit_to_views(
    model: nn.Module, policy: ViewPolicy, image_shape: tuple[int, int, int], group: str
) -> None:
    """Let a model see views as they are meant, and refuse those that it cannot take.

    Raises:
        InputError: with the first size that does not suit the model.
    """
    encoder = getattr(model, "encoder", None)
    # For images as they are stored, the network was built.
    known = [image_shape]
    if isinstance(encoder, Encoder) and encoder.sight is not None:
        encoder.sees_views_whole |= _have_own_size(policy, image_shape)
        known = [] if encoder.sees_views_whole else known
    require_fitting_views(model, [shape for shape in policy.shapes if shape not in known], group)


def _warn_of_sizes(params: TrainingParameters, policy: ViewPolicy) -> None:
    """Say so where a transform that has been given a size leaves `view_sizes` without effect."""
    wanted = params.view_sizes if isinstance(params, EncoderTraining) else ()
    if wanted and [shape[:2] for shape in policy.shapes] != [(size, size) for size in wanted]:
        logger.warning(
            "stage1.view_sizes changes nothing, as transforms make views of %d x %d pixels; leave the size "
            "out of their args, or add --params 'stage1.view_sizes=[]'",
            *policy.shapes[0][:2],
        )


def _have_own_size(policy: ViewPolicy, image_shape: tuple[int, int, int]) -> bool:
    """Whether a crop or a resize makes the views, which then have one size whatever the images have."""
    height, width, num_channels = image_shape
    try:
        views = policy(np.zeros((1, height + 8, width + 8, num_channels), np.uint8), 0)
    # A transform that is made for images of one size.
    except Exception:
        return False
    return views.shape[2:] == policy.shapes[0]


def _choose_precision(name: str, parameter: str, ranks: Ranks) -> Precision:
    """The same precision in all processes, though `auto` measures."""
    chosen = choose_precision(name, pick_device(), parameter)
    return choose_precision(ranks.agree(chosen.name), chosen.device, parameter)


def _build_loader(stage: Stage, data: LabelledImages, parameter_group: str, ranks: Ranks) -> ViewLoader:
    params = stage.params
    policy, mixing = build_views(params, stage.num_views, data, stage.view_sizes)
    loader = build_loader(
        data.images if stage.inputs is None else stage.inputs,
        data.labels,
        data.indices("train"),
        policy,
        **params.loader.model_dump(exclude={"within_category"}),
        categories=_categories(data, parameter_group) if params.loader.within_category else None,
        seed=params.seed,
        mixing=mixing,
        parameter_group=parameter_group,
        ranks=ranks,
    )
    warn_of_small_sets(stage.group, params, data, stage.has_positives_by_class)
    return loader


def _categories(data: LabelledImages, parameter_group: str) -> np.ndarray:
    if data.categories is None:
        name = f"{parameter_group}within_category"
        raise InputError(
            f"{name} must be false for images without categories, got true; give their table a column "
            f"category, or add --params {name}=false"
        )
    return data.categories


def _rates_by_depth(finetune: FinetuneParameters | None) -> dict[str, Any]:
    """What of fine-tuning `build_optimizer` takes."""
    if finetune is None:
        return {}
    return {"layer_decay": finetune.layer_decay, "head_lr_factor": finetune.head_lr_factor}


def _build_freezing(model: nn.Module, finetune: FinetuneParameters) -> Freezing:
    """What of a model is not trained.

    Raises:
        InputError: where nothing else would be trained.
    """
    names = [name for name, _ in model.named_parameters()]
    if finetune.freeze_epochs and all(name.startswith(f"{BACKBONE}.") for name in names):
        raise InputError(
            "stage1.finetune.freeze_epochs must be 0 where nothing but the backbone is trained, got "
            f"{finetune.freeze_epochs}; add --params stage1.finetune.freeze_epochs=0, or give it a head with "
            "--params stage1.loss.classifier_weight=1"
        )
    return Freezing(finetune.freeze_epochs, finetune.freeze_batch_norm)


def build_views(
    params: TrainingParameters, num_views: int, data: LabelledImages, view_sizes: Sequence[int] = ()
) -> tuple[ViewPolicy, Mixing | None]:
    """The view policy of a training, tried on the shape of its images, and its mixing."""
    specs = [spec.model_dump() for spec in params.transforms]
    keeps_aspect = isinstance(data.images, EncodedImages)
    shape, num_epochs = data.images.shape[1:], params.schedule.num_epochs
    # Without these sizes, the encoder itself makes those of `view_size` of views as large as stored images.
    resizes = isinstance(params, EncoderTraining) and bool(params.view_sizes)
    policy = ViewPolicy(specs, num_views, shape, view_sizes, num_epochs, keeps_aspect, resizes)
    mixing = Mixing(**params.mixing.model_dump(), num_classes=data.num_classes) if params.mixing else None
    return policy, mixing


def sample_views(
    params: TrainingParameters,
    num_views: int,
    data: LabelledImages,
    view_sizes: Sequence[int] = (),
    num_images: int = 8,
) -> tuple[np.ndarray, Batch]:
    """A few training images, spread over the classes, and the batch that training makes of them last."""
    train = data.indices("train")
    by_class = train[np.argsort(data.labels[train], kind="stable")]
    chosen = spread_evenly(by_class, num_images)
    dataset = ViewDataset(data.images, data.labels, *build_views(params, num_views, data, view_sizes))
    return data.images[chosen], dataset[params.seed, chosen, params.schedule.num_epochs - 1]
