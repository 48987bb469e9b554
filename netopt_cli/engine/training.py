"""A training from its beginning, or from where it was left, to its best weights.

Own code since Keras 3's `fit` fails under `MultiWorkerMirroredStrategy` (keras issue 20585) and
feeds every batch through the host. Here one call of the compiled function takes many steps, the
data lies on the device, and everything that a technique adds to training is a `Modifier` of the
same step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from netopt_cli.contracts import Modifier, Target
from netopt_cli.dataset import Dataset, FileSource
from netopt_cli.engine.checkpoints import Checkpoints
from netopt_cli.engine.evaluation import Evaluator
from netopt_cli.engine.identity import training_name
from netopt_cli.engine.interruption import finishing_steps
from netopt_cli.engine.loop import Origin, TrainingLoop
from netopt_cli.engine.settings import TrainSettings
from netopt_cli.errors import ConfigError, DivergedError
from netopt_cli.observer import Epoch, Observer


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        epochs: One entry for each epoch that was run.
        kept_epoch: The epoch whose weights the model ends with, counted from 1.
        val_score: Of the weights that the model ends with, by the metric that counts.
        trainable_params: Values that the optimizer trained, of the model and of the modifiers.
        seconds: Wall time, compilation and validation included; of a training that was taken up or
            over, that of all its parts.
        origin: See `loop.Origin`.
    """

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    val_score: float
    trainable_params: int
    seconds: float
    origin: Origin = "trained"


def fit(
    model: keras.Model,
    data: Dataset,
    settings: TrainSettings,
    *,
    target: Target,
    seed: int,
    modifiers: Sequence[Modifier] = (),
    observer: Observer,
    stage: str,
    stop_after: int | None = None,
    checkpoints: Checkpoints | None = None,
    lineage: str = "",
) -> FitResult:
    """Trains `model` in place; it must have been built in the scope of the target's strategy.

    Args:
        stop_after: Runs exactly so many of the epochs, without early stopping: for a control that
            is to be trained as long as what it is compared with.
        checkpoints: Where the training is kept, and looked for before it begins.
        lineage: See `identity.training_name`.

    Raises:
        ConfigError: The batch cannot be shared out evenly among the replicas.
        DivergedError: The loss is not finite, or far worse than guessing over an epoch. The model
            then has the weights of the last good epoch.
        DataError: A file of the training split cannot be decoded.
        KeyboardInterrupt: After the steps under way, which are kept.
    """
    started = time.perf_counter()
    replicas = target.strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise ConfigError(
            f"train.batch_size must be a multiple of the {replicas} replicas of "
            f"target={target.name}. Received: train.batch_size={settings.batch_size}"
        )
    policies = _compute_in(model, settings.mixed_precision)
    loop = TrainingLoop(
        model,
        data,
        settings,
        target=target,
        seed=seed,
        modifiers=modifiers,
        observer=observer,
        stage=stage,
        last_epoch=stop_after or settings.epochs,
        started=started,
    )
    if checkpoints is not None:
        name = training_name(
            model,
            loop.variables,
            data,
            settings,
            target=target,
            seed=seed,
            modifiers=modifiers,
            stop_after=stop_after,
            lineage=lineage,
        )
        loop.take_up(checkpoints.of(name))
    patience = settings.early_stopping_epochs if stop_after is None else None
    observer.training_starts(stage, settings.epochs, loop.total_steps, data.task.metric)
    try:
        if loop.history:
            observer.taken_up(loop.history, loop.origin)
        with finishing_steps() as interruption:
            while not loop.is_finished(patience):
                loop.next_epoch(interruption)
    except (DivergedError, KeyboardInterrupt):
        loop.best.restore()
        raise
    except tf.errors.OpError:
        if isinstance(data.train, FileSource):
            data.train.check_files()  # names the file, which the compiled pipeline cannot
        raise
    finally:
        observer.training_ends()
        for layer, policy in policies.items():
            layer.dtype_policy = policy
    loop.finish()
    val_score = loop.best.val_score
    if policies:
        # What is kept computes in float32 again, unlike what validation has seen.
        _, val_score = Evaluator(model, data, data.validation)()
    return FitResult(
        epochs=tuple(loop.history),
        kept_epoch=loop.best.kept_epoch,
        val_score=val_score,
        trainable_params=loop.trainable_params,
        seconds=loop.seconds,
        origin=loop.origin,
    )


def _compute_in(model: keras.Model, mixed_precision: str) -> dict[keras.Layer, Any]:
    """Lets float32 layers compute in lower precision; returns them with their own policies."""
    if mixed_precision == "none":
        return {}
    changed = {
        layer: layer.dtype_policy
        for layer in model._flatten_layers(include_self=False)
        if layer.dtype_policy.name == "float32"
    }
    for layer in changed:
        layer.dtype_policy = f"mixed_{mixed_precision}"
    return changed
