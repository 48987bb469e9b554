"""The archs that netopt builds itself: parameter counts, adaptivity, choices, refusals."""

import importlib
import typing
from typing import Any

import keras
import numpy as np
import pytest

from netopt_cli import blocks
from netopt_cli.errors import ArchError

CONVOLUTIONAL = ["lenet5", "cnn", "vgg", "alexnet", "inception", "resnet", "mobilenet", "ds_cnn"]
SPEECH = ["ds_cnn", "crnn"]
SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (12, 20, 2)]


def build(name: str, shape: tuple[int, ...], classes: int = 10, **options: Any) -> keras.Model:
    return importlib.import_module(f"netopt_cli.arch.{name}").build(shape, classes, **options)


def logits(model: keras.Model) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    return keras.ops.convert_to_numpy(model(x))


@pytest.mark.parametrize(
    ("name", "shape", "options", "parameters"),
    [
        ("mlp", (28, 28, 1), {}, 266_610),
        ("lenet5", (28, 28, 1), {}, 431_080),
        ("cnn", (28, 28, 1), {}, 241_546),
        ("resnet", (32, 32, 3), {"depth": 8}, 78_666),
        (
            "cnn1d",
            (96, 3),
            {"filters": [16, 32], "kernel_sizes": [5, 3]},
            3 * 5 * 16 + 4 * 16 + 16 * 3 * 32 + 4 * 32 + 330,
        ),
        ("rnn", (49, 10, 1), {"cell": "gru"}, 3 * (10 * 64 + 64 * 64 + 2 * 64) + 650),
        # The convolutions of VGG-16 as in keras.applications, and 512 * 10 + 10 for the logits.
        (
            "vgg",
            (32, 32, 3),
            {
                "widths": [64, 128, 256, 512, 512],
                "repeats": [2, 2, 3, 3, 3],
                "normalization": "none",
            },
            14_714_688 + 5_130,
        ),
    ],
)
def test_parameter_counts_of_the_literature(name, shape, options, parameters):
    assert build(name, shape, **options).count_params() == parameters


def test_speech_networks_have_the_parameters_of_mlperf_tiny():
    assert build("ds_cnn", (49, 10, 1), 12).count_params() == 24_908
    assert build("autoencoder", (640,), 640).count_params() == 269_992


def test_googlenet_has_the_parameters_of_the_paper():
    model = build(
        "inception",
        (64, 64, 3),
        1000,
        width=1.0,
        modules=(2, 5, 2),
        halvings=5,
        normalization="none",
    )
    assert model.count_params() == 6_998_552


@pytest.mark.parametrize(
    ("variant", "alpha", "reference"),
    [("v1", 0.25, keras.applications.MobileNet), ("v2", 0.35, keras.applications.MobileNetV2)],
)
def test_mobilenet_has_the_body_of_keras_applications(variant, alpha, reference):
    theirs = reference(weights=None, alpha=alpha, include_top=False, input_shape=(32, 32, 3))
    ours = build("mobilenet", (32, 32, 3), variant=variant, alpha=alpha)
    assert ours.count_params() - ours.get_layer("logits").count_params() == theirs.count_params()


@pytest.mark.parametrize("name", ["mlp", *CONVOLUTIONAL])
@pytest.mark.parametrize("shape", SHAPES)
def test_defaults_adapt_to_shape_and_classes(name, shape):
    model = build(name, shape, classes=7)
    assert model.name == name
    assert model.inputs[0].name == "input"
    assert model.inputs[0].dtype == "float32"
    y = logits(model)
    assert y.shape == (2, 7)
    assert np.isfinite(y).all()
    assert not np.allclose(y.sum(-1), 1)  # Logits, not probabilities.


def test_mlp_takes_vectors():
    assert logits(build("mlp", (64,))).shape == (2, 10)


def test_mlp_without_hidden_layers_is_logistic_regression():
    assert build("mlp", (64,), hidden=[]).count_params() == 64 * 10 + 10


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_archs_refuse_vectors(name):
    with pytest.raises(ArchError, match=rf"{name} needs images .*Received: shape=\(64,\)"):
        build(name, (64,))


@pytest.mark.parametrize("name", ["cnn", "resnet", "vgg"])
@pytest.mark.parametrize("convolution", typing.get_args(blocks.Convolution))
def test_every_convolution(name, convolution):
    y = logits(build(name, (8, 8, 1), convolution=convolution, normalization="batch"))
    assert y.shape == (2, 10)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("name", ["mlp", *CONVOLUTIONAL])
@pytest.mark.parametrize("normalization", typing.get_args(blocks.Normalization))
def test_every_normalization_with_dropout(name, normalization):
    small = {"inception": {"modules": (1, 1, 1)}}.get(name, {})
    model = build(name, (8, 8, 1), normalization=normalization, dropout=0.3, **small)
    assert any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)
    assert np.isfinite(logits(model)).all()


@pytest.mark.parametrize("name", ["mlp", *CONVOLUTIONAL])
def test_layer_names_are_stable(name):
    first, second = (build(name, (8, 8, 1)) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


@pytest.mark.parametrize("name", SPEECH)
@pytest.mark.parametrize("shape", [(1, 1, 1), (36, 20, 1), (49, 10, 2)])
def test_speech_archs_adapt_to_the_spectrum(name, shape):
    options = {"unroll": False} if name == "crnn" else {}
    assert np.isfinite(logits(build(name, shape, **options))).all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_crnn_reads_both_ways(cell):
    one_way, both_ways = (
        build("crnn", (12, 8, 1), cell=cell, units=[5, 3], bidirectional=both, unroll=False)
        for both in (False, True)
    )
    assert one_way.get_layer("dense").kernel.shape == (3, 64)
    assert both_ways.get_layer("dense").kernel.shape == (6, 64)
    assert np.isfinite(logits(both_ways)).all()


def test_crnn_needs_a_spectrum_and_a_recurrent_layer():
    with pytest.raises(ArchError, match=r"crnn needs images .*Received: shape=\(64,\)"):
        build("crnn", (64,))
    with pytest.raises(ArchError, match=r"arch.units must name at least one layer"):
        build("crnn", (12, 8, 1), units=[])


def test_an_autoencoder_gives_back_what_it_gets():
    model = build("autoencoder", (6, 5, 2), 60, hidden=[8, 2, 8])
    assert logits(model).shape == (2, 60)
    with pytest.raises(ArchError, match=r"here 60, .*Received: classes=10. Use arch=mlp"):
        build("autoencoder", (6, 5, 2), 10)


def adds(model: keras.Model) -> int:
    return sum(isinstance(layer, keras.layers.Add) for layer in model.layers)


def test_residual_can_be_turned_on_and_off():
    assert adds(build("cnn", (8, 8, 1))) == 0
    assert adds(build("cnn", (8, 8, 1), residual=True)) == 2
    assert adds(build("resnet", (8, 8, 1), depth=14)) == 6
    assert adds(build("resnet", (8, 8, 1), residual=False)) == 0
    assert adds(build("mobilenet", (8, 8, 1), variant="v2", alpha=1.0)) == 10
    assert adds(build("mobilenet", (8, 8, 1), variant="v2", alpha=1.0, residual=False)) == 0


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("cnn", (4, 8, 1), {}, "at least 8x8 .*Received: 4x8.*arch.filters"),
        (
            "vgg",
            (8, 8, 1),
            {"widths": [8] * 4, "repeats": [1] * 4},
            "16x16 .*Received: 8x8.*arch.widths",
        ),
        ("lenet5", (8, 8, 1), {"padding": "valid"}, "16x16.*Received: 8x8.*arch.padding=same"),
        ("lenet5", (3, 3, 1), {}, "at least 4x4.*Received: 3x3.*arch=mlp"),
        ("alexnet", (7, 7, 1), {}, "at least 8x8.*Received: 7x7"),
        ("alexnet", (32, 32, 3), {"stem": "original"}, "67x67.*Received: 32x32.*arch.stem=small"),
        ("resnet", (3, 3, 1), {}, "at least 4x4.*Received: 3x3"),
        ("inception", (8, 8, 1), {"halvings": 4}, "16x16.*Received: 8x8.*Lower arch.halvings"),
        ("mobilenet", (8, 8, 1), {"halvings": 5}, "32x32.*Received: 8x8.*Lower arch.halvings"),
    ],
)
def test_too_deep_for_the_input_says_what_to_change(name, shape, options, message):
    with pytest.raises(ArchError, match=message):
        build(name, shape, **options)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("cnn", (8, 8, 1), {}),
        ("lenet5", (16, 16, 1), {"padding": "valid"}),
        ("lenet5", (4, 4, 1), {}),
        ("alexnet", (8, 8, 1), {}),
        ("alexnet", (67, 67, 1), {"stem": "original"}),
        ("resnet", (4, 4, 1), {}),
        ("mobilenet", (8, 8, 1), {"halvings": 3}),
    ],
)
def test_the_smallest_input_that_is_promised_works(name, shape, options):
    assert np.isfinite(logits(build(name, shape, **options))).all()


@pytest.mark.parametrize(
    ("depth", "nearest"), [(1, "8"), (2, "8"), (7, "8"), (10, "8 or 14"), (18, "14 or 20")]
)
def test_resnet_names_the_nearest_depths(depth, nearest):
    with pytest.raises(ArchError, match=f"6n \\+ 2. Received: depth={depth}. Nearest: {nearest}$"):
        build("resnet", (8, 8, 1), depth=depth)


def test_resnet_depth_counts_convolutions_and_head():
    model = build("resnet", (8, 8, 1), depth=20)
    weighted = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert sum("shortcut" not in layer.name for layer in weighted) == 20


def test_vgg_wants_one_repeat_a_stage():
    with pytest.raises(ArchError, match=r"widths=\[8, 8\], repeats=\[1\]"):
        build("vgg", (8, 8, 1), widths=[8, 8], repeats=[1])


def test_mobilenet_keeps_a_last_map_of_four():
    for side, last in [(8, 4), (28, 4), (32, 4), (64, 4), (224, 7)]:
        pool = build("mobilenet", (side, side, 1)).get_layer("global_pool")
        assert pool.input.shape[1:3] == (last, last)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64,), {}, r"cnn1d needs sequences .*Received: shape=\(64,\)"),
        ((64, 2), {"filters": [8]}, r"kernel_sizes must be as many .*filters=\[8\]"),
        ((64, 2), {"strides": 2, "per_step": True}, r"per_step needs arch.strides=1.*strides=2"),
    ],
)
def test_cnn1d_refuses_what_does_not_fit(shape, options, message):
    with pytest.raises(ArchError, match=message):
        build("cnn1d", shape, **options)
