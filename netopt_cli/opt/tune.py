"""Parameter-efficient tuning of a trained network to other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import keras
from pydantic import Field

from netopt_cli.contracts import Context, Modifier, Network, Preflight
from netopt_cli.errors import InputError
from netopt_cli.graph.adapters import with_adapters
from netopt_cli.graph.freezing import trained_alone
from netopt_cli.graph.kernels import kernels
from netopt_cli.graph.low_rank_update import is_smaller, low_rank_updates
from netopt_cli.graph.naming import left_lines, matches, require_matches
from netopt_cli.graph.quantizers import owners
from netopt_cli.graph.rebuild import head


@dataclass(frozen=True)
class Tune:
    """Trains on with few of the parameters, or with few new ones.

    Made for a network that was loaded, with weights from other data:
    `arch=keras_model arch.path=FILE train.epochs=0 opt=tune`. The baseline is then the network as
    it was loaded, and the control is full fine-tuning for as long.

    Each weight is either trained itself, since it is in `trained` or not in `frozen`, or frozen;
    frozen ones are adapted by `method`. What was trained is the column `trainable_params`.

    Attributes:
        method: `full` trains everything; `freeze` adapts nothing; `bitfit` trains the frozen
            layers' biases and shifts (Ben Zaken et al., 2022); `lora` trains a low-rank update of
            each frozen kernel, which is part of the kernel in the end, so that the file is as small
            as before (Hu et al., 2022); `adapters` puts small residual modules behind the frozen
            layers, which stay (Houlsby et al., 2019).
        frozen: Patterns of weight paths that are not trained themselves.
        trained: Patterns of weight paths that are trained though they are in `frozen`; None is the
            head, the last dense layer or convolution.
        rank: Of the updates of `lora`; kernels that are smaller than such factors stay frozen.
        alpha: `lora` scales an update by alpha / rank.
        bottleneck: Units in the middle of an adapter.
        adapt_batch_norm: Whether a frozen BatchNorm goes on with statistics of the new data; they
            are no trained parameters.
        epochs: Epochs of the stage.
        learning_rate: Peak of the stage's schedule; None is that of `train`.
    """

    method: Literal["full", "freeze", "bitfit", "lora", "adapters"] = "lora"
    frozen: tuple[str, ...] = ("*",)
    trained: tuple[str, ...] | None = None
    rank: Annotated[int, Field(ge=1)] = 4
    alpha: Annotated[float, Field(gt=0)] = 8.0
    bottleneck: Annotated[int, Field(ge=1)] = 8
    adapt_batch_norm: bool = True
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, network: Network, context: Context) -> Network:
        network, new_layers = self._rewritten(network)
        model = network.model
        trained = [v for v in model.trainable_variables if self._is_trained(v, model, new_layers)]
        modifiers: list[Modifier] = []
        if self.method == "lora":
            adapted, left = self._adapted(model)
            modifiers = [low_rank_updates(adapted, self.rank, self.alpha, context.seed)]
            for line in left:
                context.note(line)
        whole = sum(v.value.shape.num_elements() for v in model.trainable_variables)
        count = sum(
            v.value.shape.num_elements()
            for v in (*trained, *(v for m in modifiers for v in m.variables))
        )
        context.note(
            f"{self.method}: trains {count:,} parameters, {count / whole:.2%} of {whole:,}"
        )
        with trained_alone(model, trained, adapt_batch_norm=self.adapt_batch_norm):
            return context.fit(
                network,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                modifiers=modifiers,
            )

    def plan(self, preflight: Preflight) -> Network:
        if self.method == "lora":
            why = f"the merged kernels would have none of its {{}}; put '{preflight.stage}' before"
            preflight.refuse_after("zeros", f"{why.format('zeros')} it, or use method=bitfit")
            preflight.refuse_after("codebook", f"{why.format('values')} it, or use method=bitfit")
        network, new_layers = self._rewritten(preflight.network)
        model = network.model
        paths = [v.path for v in model.trainable_variables]
        require_matches(paths, self.frozen, where="opt.tune.frozen")
        require_matches(paths, self.trained or (), where="opt.tune.trained")
        can_train = any(self._is_trained(v, model, new_layers) for v in model.trainable_variables)
        if self.method == "lora" and not self._adapted(model)[0]:
            raise InputError(
                "opt.tune.method=lora finds no frozen kernel that is larger than its factors of "
                f"rank {self.rank}: lower opt.tune.rank, or use method=full"
            )
        if self.method != "lora" and not can_train:
            raise InputError(
                f"opt.tune.method={self.method} would train nothing. Received: "
                f"frozen={list(self.frozen)}, trained={list(self.trained or ())}"
            )
        return network

    def _rewritten(self, network: Network) -> tuple[Network, Sequence[str]]:
        """The network with its adapters, and their names."""
        if self.method != "adapters":
            return network, ()
        owner = owners(network.model)
        frozen = (
            owner[path]
            for path, kernel in kernels(network.model).items()
            if not self._is_kept_trained(kernel, network.model)
        )
        hosts = {layer.name for layer in frozen if layer is not None}
        model, new_layers = with_adapters(network.model, hosts, self.bottleneck)
        if not new_layers:
            raise InputError(
                "opt.tune.method=adapters finds no frozen dense layer or convolution that can get "
                "an adapter: use method=lora or method=bitfit"
            )
        return replace(network, model=model), new_layers

    def _is_trained(
        self, weight: keras.Variable, model: keras.Model, new_layers: Sequence[str]
    ) -> bool:
        is_bias = weight.name in ("bias", "beta")
        return (
            self._is_kept_trained(weight, model)
            or (self.method == "bitfit" and is_bias)
            or weight.path.rpartition("/")[0] in new_layers
        )

    def _is_kept_trained(self, weight: keras.Variable, model: keras.Model) -> bool:
        """Whether a weight is trained itself whatever the method does with the frozen ones."""
        if self.method == "full" or not matches(weight.path, self.frozen):
            return True
        if self.trained is None:
            last = head(model)
            return last is not None and any(weight is one for one in last.weights)
        return matches(weight.path, self.trained)

    def _adapted(self, model: keras.Model) -> tuple[dict[str, keras.Variable], list[str]]:
        """The kernels that get a low-rank update, and lines about those that are too small."""
        frozen = {
            path: kernel
            for path, kernel in kernels(model).items()
            if not self._is_kept_trained(kernel, model)
        }
        too_small = [path for path, kernel in frozen.items() if not is_smaller(kernel, self.rank)]
        reason = f"smaller than factors of rank {self.rank}"
        return (
            {path: kernel for path, kernel in frozen.items() if path not in too_small},
            left_lines((path, reason) for path in too_small),
        )
