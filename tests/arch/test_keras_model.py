"""The user's own model: files that are good, odd and hostile, and keras.applications."""

from pathlib import Path

import keras
import numpy as np
import pytest

from netopt_cli.arch import keras_model
from netopt_cli.errors import ArchError

SHAPE = (12, 12, 3)


def conv_net(shape=SHAPE, classes=4, activation="softmax", head="pool") -> keras.Model:
    inputs = keras.Input(shape, name="pixels")
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    to_vector = {"pool": keras.layers.GlobalAveragePooling2D, "flatten": keras.layers.Flatten}
    x = to_vector[head]()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation=activation, name="top")(x))


def images(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")


def saved(model: keras.Model, tmp_path: Path, suffix: str = ".keras") -> str:
    path = tmp_path / f"model{suffix}"
    model.save(path)
    return str(path)


def assert_logits_of(built: keras.Model, original: keras.Model) -> None:
    """`original` ends in softmax: softmax of the new logits must be its output."""
    x = images(built.input_shape[1:])
    np.testing.assert_allclose(keras.ops.softmax(built(x)), original(x), atol=1e-5)
    assert not np.allclose(keras.ops.sum(built(x), axis=-1), 1, atol=1e-3)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_weights_are_loaded_and_softmax_is_stripped(tmp_path, suffix):
    original = conv_net()
    built = keras_model.build(SHAPE, 4, path=saved(original, tmp_path, suffix))
    assert built.name == "keras_model"
    assert built.inputs[0].name == "input"
    assert_logits_of(built, original)


@pytest.mark.parametrize(
    "last", [keras.layers.Softmax(), keras.layers.Activation("softmax")], ids=lambda x: x.name
)
def test_a_softmax_layer_is_stripped_too(tmp_path, last):
    base = conv_net(activation=None)
    original = keras.Model(base.input, last(base.output))
    assert_logits_of(keras_model.build(SHAPE, 4, path=saved(original, tmp_path)), original)


def test_the_head_is_replaced_when_the_classes_differ(tmp_path):
    original = conv_net()
    built = keras_model.build(SHAPE, 7, path=saved(original, tmp_path))
    assert built.output_shape == (None, 7)
    assert built.layers[-1].name == "logits"
    for name in ("conv", "bn"):
        for old, new in zip(
            original.get_layer(name).get_weights(), built.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(old, new)


def test_a_single_sigmoid_output_becomes_two_logits(tmp_path):
    original = conv_net(classes=1, activation="sigmoid")
    built = keras_model.build(SHAPE, 2, path=saved(original, tmp_path))
    assert built.output_shape == (None, 2)
    assert built.get_layer("logits").activation is keras.activations.linear


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_globally_pooled_model_is_rebuilt_for_another_size(tmp_path, suffix):
    original = conv_net()
    built = keras_model.build((20, 16, 3), 4, path=saved(original, tmp_path, suffix))
    assert built.input_shape == (None, 20, 16, 3)
    np.testing.assert_array_equal(built.get_layer("conv").kernel, original.get_layer("conv").kernel)


def test_a_nested_base_is_rebuilt_for_another_size_and_keeps_its_weights(tmp_path):
    base = conv_net(activation=None)
    original = keras.Sequential(
        [keras.Input(SHAPE), base, keras.layers.Dense(5, name="top_2"), keras.layers.Softmax()]
    )
    path = saved(original, tmp_path)
    assert_logits_of(keras_model.build(SHAPE, 5, path=path), original)
    larger = keras_model.build((16, 16, 3), 5, path=path)
    inner = next(layer for layer in larger.layers if isinstance(layer, keras.Model))
    np.testing.assert_array_equal(inner.get_layer("conv").kernel, base.get_layer("conv").kernel)


def test_a_head_inside_a_nested_model_is_replaced(tmp_path):
    inputs = keras.Input(SHAPE)
    original = keras.Model(inputs, conv_net()(inputs))
    built = keras_model.build(SHAPE, 9, path=saved(original, tmp_path))
    assert built.output_shape == (None, 9)
    assert logits_range(built) > 1e-3


def logits_range(model: keras.Model) -> float:
    y = keras.ops.convert_to_numpy(model(images(model.input_shape[1:])))
    assert np.isfinite(y).all()
    return float(np.ptp(y))


def test_a_convolution_as_the_head_is_replaced(tmp_path):
    original = keras.applications.MobileNet(
        weights=None, alpha=0.25, classes=4, input_shape=(32, 32, 3)
    )
    built = keras_model.build((32, 32, 3), 6, path=saved(original, tmp_path))
    assert built.output_shape == (None, 6)
    assert built.get_layer("logits").filters == 6


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((20, 20, 3), r"Set arch\.resize=12\. .*'top'"), ((12, 12, 1), "'conv'"), ((432,), "ndim")],
)
def test_a_shape_that_cannot_fit_names_both_shapes(tmp_path, shape, reason):
    path = saved(conv_net(head="flatten"), tmp_path)
    with pytest.raises(ArchError, match=r"made for inputs of shape \(12, 12, 3\)") as caught:
        keras_model.build(shape, 4, path=path)
    assert str(shape) in str(caught.value)
    caught.match(reason)


def test_resize_makes_a_fixed_size_fit(tmp_path):
    original = conv_net(head="flatten")
    built = keras_model.build((24, 24, 3), 4, path=saved(original, tmp_path), resize=12)
    assert built.input_shape == (None, 24, 24, 3)
    x = images((24, 24, 3))
    resized = keras.layers.Resizing(12, 12)(x)
    np.testing.assert_allclose(keras.ops.softmax(built(x)), original(resized), atol=1e-5)


def test_a_nested_first_model_sees_the_resized_images(tmp_path):
    stem = keras.Sequential([keras.layers.Conv2D(3, 3, activation="relu"), keras.layers.Flatten()])
    inputs = keras.Input(SHAPE)
    original = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(stem(inputs)))
    built = keras_model.build((24, 24, 3), 4, path=saved(original, tmp_path), resize=12)
    x = images((24, 24, 3))
    resized = keras.layers.Resizing(12, 12)(x)
    np.testing.assert_allclose(keras.ops.softmax(built(x)), original(resized), atol=1e-5)


def test_nothing_is_inserted_without_resize(tmp_path):
    built = keras_model.build(SHAPE, 4, path=saved(conv_net(), tmp_path))
    assert not any(isinstance(layer, keras.layers.Resizing) for layer in built.layers)


def test_an_unbuilt_sequential_is_built_for_the_data(tmp_path):
    model = keras.Sequential([keras.layers.Dense(5, activation="relu"), keras.layers.Dense(3)])
    built = keras_model.build((6,), 3, path=saved(model, tmp_path))
    assert built.input_shape == (None, 6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("function", [lambda x: x * 2, keras.ops.relu], ids=["python", "named"])
def test_lambda_is_refused(tmp_path, suffix, function):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(function), keras.layers.Dense(3)]
    )
    with pytest.raises(ArchError, match="Lambda layer, which can run any code"):
        keras_model.build((4,), 3, path=saved(model, tmp_path, suffix))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_damaged_file_is_refused(tmp_path, suffix):
    path = Path(saved(conv_net(), tmp_path, suffix))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArchError, match=path.name):
        keras_model.build(SHAPE, 4, path=str(path))


def test_weights_without_a_model_are_refused(tmp_path):
    path = tmp_path / "only.weights.h5"
    conv_net().save_weights(path)
    with pytest.raises(ArchError, match="holds no Keras model"):
        keras_model.build(SHAPE, 4, path=str(path))


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_an_unknown_class_is_refused(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 4)))
    with pytest.raises(ArchError, match=r"not Keras' own: 'Subclassed'.*--allow MODULE"):
        keras_model.build((4,), 3, path=saved(model, tmp_path))


def test_a_registered_subclassed_model_is_refused(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 4)))
    path = saved(model, tmp_path)
    with (
        keras.saving.CustomObjectScope({"Subclassed": Subclassed}),
        pytest.raises(ArchError, match="subclassed model"),
    ):
        keras_model.build((4,), 3, path=path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)], "one input and one"),
        (keras.layers.Reshape((2, 2)), "one input and one"),
        (lambda x: keras.layers.Add()([x, x]), "no Dense or convolution head"),
    ],
)
def test_a_model_of_another_form_is_refused(tmp_path, make, message):
    inputs = keras.Input((4,))
    with pytest.raises(ArchError, match=message):
        keras_model.build((4,), 3, path=saved(keras.Model(inputs, make(inputs)), tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"path": "a.keras", "application": "MobileNet"}, "exactly one"),
        ({"path": "a.keras", "weights": "imagenet"}, "arch.weights is for arch.application"),
        ({"path": "nowhere.keras"}, "does not exist.*nowhere.keras"),
        ({"path": "model.pb"}, "must be a .keras or .h5 file.*model.pb"),
        ({"application": "MobileNetv22"}, "Did you mean 'MobileNetV2'"),
        ({"application": "MobileNet"}, "at least 32x32. Received: 12x12. Set arch.resize=32"),
        ({"application": "Xception", "resize": 32}, "at least 71x71"),
    ],
)
def test_wrong_parameters(options, message):
    with pytest.raises(ArchError, match=message):
        keras_model.build(SHAPE, 4, **options)


def test_imagenet_weights_need_three_channels():
    with pytest.raises(ArchError, match=r"3 channels.*arch.weights=null"):
        keras_model.build((32, 32, 1), 4, application="MobileNet", weights="imagenet")


def test_imagenet_weights_that_cannot_be_downloaded_say_so(monkeypatch):
    def offline(**options):
        raise Exception("URL fetch failure: Name or service not known")

    offline.__name__ = "MobileNet"
    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(ArchError, match=r"cannot be downloaded.*URL fetch failure"):
        keras_model.build((32, 32, 3), 4, application="MobileNet", weights="imagenet")


def test_trained_weights_of_an_application_get_a_new_head(monkeypatch):
    trained = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(64, 64, 3))

    def cached(*, weights):
        assert weights == "imagenet"
        return trained

    monkeypatch.setattr(keras.applications, "MobileNet", cached)
    built = keras_model.build((32, 32, 3), 4, application="mobilenet", weights="imagenet")
    assert built.output_shape == (None, 4)
    np.testing.assert_array_equal(
        built.get_layer("conv1").kernel, trained.get_layer("conv1").kernel
    )


def test_an_application_takes_the_channels_of_the_data_and_gives_logits():
    built = keras_model.build((28, 28, 1), 4, application="mobilenet", resize=32)
    assert built.input_shape == (None, 28, 28, 1)
    assert built.output_shape == (None, 4)
    assert logits_range(built) > 0


def test_preprocessing_of_an_application_is_left_out():
    built = keras_model.build((32, 32, 3), 4, application="EfficientNetB0")
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    assert not any(isinstance(layer, kinds) for layer in built.layers)
    assert built.output_shape == (None, 4)
