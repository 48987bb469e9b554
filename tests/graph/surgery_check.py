"""Shared by the tests of surgery: perturb a network, cut it, compare with the masked one."""

import re

import keras
import numpy as np

from netopt_cli.graph.channels import ChannelGraph, read_channels, weights_by_path
from netopt_cli.graph.surgery import masked, remove


def perturb(model: keras.Model, seed: int = 0) -> None:
    """Makes every vector of a model other than neutral, so that a forgotten one shows."""
    random = np.random.default_rng(seed)
    for path, variable in weights_by_path(model).items():
        if len(variable.shape) != 1:
            continue
        if "gamma" in path or "scale" in path or "variance" in path:
            value = random.uniform(0.5, 1.5, variable.shape)
        else:
            value = random.normal(0, 0.3, variable.shape)
        variable.assign(value.astype(variable.dtype))


def inputs_for(model: keras.Model, seed: int = 0) -> list[np.ndarray]:
    """Two samples for each input; unknown sizes are 4, integers are below 5."""
    random = np.random.default_rng(seed)
    shapes = [(2, *[size or 4 for size in tensor.shape[1:]]) for tensor in model.inputs]
    return [
        random.integers(0, 5, shape).astype(tensor.dtype)
        if "int" in tensor.dtype
        else random.normal(size=shape).astype(tensor.dtype)
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]


def run(model: keras.Model, x: list[np.ndarray]) -> list[np.ndarray]:
    given = x[0] if len(x) == 1 else keras.tree.pack_sequence_as(model.input, x)
    outputs = model(given, training=False)
    return [np.asarray(one) for one in keras.tree.flatten(outputs)]


def paths(model: keras.Model) -> list[str]:
    """Returns the paths of the weights; Keras numbers a weight that its layer did not name."""
    return [re.sub(r"/variable(_\d+)?$", "/variable", weight.path) for weight in model.weights]


def some_units(graph: ChannelGraph, ratio: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Draws about `ratio` of the units of each group, leaving one at least."""
    random = np.random.default_rng(seed)
    return {
        group.name: random.permutation(group.size)[
            : min(group.size - 1, max(1, round(ratio * group.size)))
        ]
        for group in graph.groups
    }


def check(
    model: keras.Model, ratio: float = 0.3, seed: int = 0, *, changes: bool = True
) -> tuple[ChannelGraph, keras.Model]:
    """Asserts that the cut model computes what the masked one does, and is smaller.

    Args:
        changes: Also assert that the result differs from that of the whole model: else removed
            and masked could agree because the units did not matter.
    """
    perturb(model, seed)
    before = model.get_weights()
    graph = read_channels(model)
    removed = some_units(graph, ratio, seed)
    smaller, same = remove(model, graph, removed), masked(model, graph, removed)
    x = inputs_for(model, seed)
    whole, cut, kept = run(model, x), run(smaller, x), run(same, x)
    for one, other, original in zip(cut, kept, whole, strict=True):
        scale = max(1.0, float(np.abs(original).max()))
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)
        assert np.isfinite(one).all()
    if changes:
        assert any(np.abs(a - b).max() > 1e-5 for a, b in zip(whole, cut, strict=True))
        assert smaller.count_params() < model.count_params()
    assert paths(smaller) == paths(model)
    assert [w.shape for w in same.weights] == [w.shape for w in model.weights]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # The model itself is left alone.
    return graph, smaller
