"""The layer that rounds activations as the exported int8 file does."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import tensorflow as tf

from netopt_cli.graph.quant_grid import learned_step, round_to_grid

RangeMethod = Literal["minmax", "lsq", "fixed"]

_LEVELS = 255
_RANGE_MOMENTUM = 0.99
# A narrower one would let the file's 32-bit biases overflow.
_SMALLEST_RANGE = 1e-4


@keras.saving.register_keras_serializable(package="netopt")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to 8 bits, where the file holds them in 8 bits.

    Several tensors can be given as a list: they share one range, as the inputs of a concatenation.

    Args:
        method: `minmax`: the range is a moving average of the batches' (until `frozen`); `lsq`: a
            trained factor scales the calibrated range; `fixed`: the range stays.
        limits: The range, when it is known: then it is not calibrated.
    """

    def __init__(
        self,
        method: RangeMethod = "minmax",
        limits: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.method = method
        self.limits = None if limits is None else tuple(limits)
        self.seen: tuple[float, float] | None = None
        self._calibrating = False

    def build(self, input_shape: Any) -> None:
        low, high = self.limits or (-1.0, 1.0)
        self.range = self.add_weight(shape=(2,), trainable=False, name="range")
        self.range.assign([low, high])
        if self.method == "minmax":
            self.frozen = self.add_weight(shape=(), initializer="zeros", trainable=False,
                                          name="frozen")  # fmt: skip
        if self.method == "lsq":
            self.log_scale = self.add_weight(shape=(), initializer="zeros", name="log_scale")

    def call(
        self,
        inputs: Any,
        training: bool | None = None,
        observe: bool = True,
        step_only: bool = False,
    ) -> Any:
        """Rounds `inputs`.

        Args:
            observe: Whether these values count for the range.
            step_only: Returns the step of the grid, a scalar, instead.
        """
        tensors = [tf.cast(x, tf.float32) for x in keras.tree.flatten(inputs)]
        if step_only:
            return self._grid(tensors)[0]
        if self._calibrating:
            if observe:
                self._see(tensors)
            return inputs
        if training and observe and self.method == "minmax":
            self._follow(tensors)
        step, zero_point = self._grid(tensors)
        low, high = -zero_point, _LEVELS - zero_point
        if training:
            rounded = [round_to_grid(x, step, low, high) for x in tensors]
        else:  # the operation that the converter reads ranges from
            rounded = [
                tf.quantization.fake_quant_with_min_max_vars(x, low * step, high * step)
                for x in tensors
            ]
        return keras.tree.pack_sequence_as(inputs, rounded)

    def _grid(self, tensors: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Step and zero point; zero is a point of the grid."""
        low, high = tf.unstack(tf.convert_to_tensor(self.range.value))
        low = tf.minimum(low, 0.0)
        high = tf.maximum(high, low + _SMALLEST_RANGE)
        high = tf.maximum(high, 0.0)
        step = (high - low) / _LEVELS
        zero_point = tf.clip_by_value(tf.round(-low / step), 0.0, _LEVELS)
        if self.method == "lsq":
            features = sum(math.prod(size or 1 for size in x.shape[1:]) for x in tensors)
            step *= learned_step(self.log_scale, features, _LEVELS)
        return step, zero_point

    def _follow(self, tensors: list[tf.Tensor]) -> None:
        seen = tf.stack([
            tf.reduce_min([tf.reduce_min(x) for x in tensors]),
            tf.reduce_max([tf.reduce_max(x) for x in tensors]),
        ])  # fmt: skip
        share = (1.0 - _RANGE_MOMENTUM) * (1.0 - self.frozen.value)
        self.range.assign(self.range + share * (seen - self.range.value))

    def _see(self, tensors: list[tf.Tensor]) -> None:
        low = min(float(tf.reduce_min(x)) for x in tensors)
        high = max(float(tf.reduce_max(x)) for x in tensors)
        before = self.seen or (low, high)
        self.seen = min(low, before[0]), max(high, before[1])

    def calibration(self, on: bool) -> None:
        """Begins or ends watching: while it is on, values pass unchanged and are only seen."""
        self._calibrating = on
        if on:
            self.seen = None
        elif self.seen is not None:
            self.range.assign(self.seen)

    def compute_output_spec(self, inputs: Any, step_only: bool = False, **kwargs: Any) -> Any:
        if step_only:
            return keras.KerasTensor((), "float32")
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, "float32"), inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "method": self.method, "limits": self.limits}
