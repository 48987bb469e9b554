import keras
import numpy as np
import pytest
import tensorflow as tf

from netopt_cli.errors import RunError
from netopt_cli.export.saved_model import save
from netopt_cli.measure.saved_model_runtime import SavedModelRunner

SHAPE = (6, 6, 1)
X = np.random.default_rng(0).standard_normal((7, *SHAPE)).astype(np.float32)


def small_net() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.5)(layers.Flatten()(x))))


def test_it_computes_what_the_model_computes(tmp_path):
    model = small_net()
    save(model, tmp_path)
    found = list(SavedModelRunner(tmp_path).logits([X[:5], X[5:]]))
    assert [len(logits) for logits in found] == [5, 2]
    expected = model(X, training=False).numpy()
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


def test_tensorflow_serves_any_batch_by_default_and_one_sample_by_name(tmp_path):
    model = small_net()
    save(model, tmp_path)
    signatures = tf.saved_model.load(str(tmp_path)).signatures
    assert set(signatures) == {"serving_default", "serve_one"}
    (logits,) = signatures["serving_default"](x=X).values()
    np.testing.assert_allclose(logits, model(X, training=False), atol=1e-5)
    (logits,) = signatures["serve_one"](x=X[:1]).values()
    assert logits.shape == (1, 3)


def test_every_weight_is_stored_once(tmp_path):
    model = small_net()
    save(model, tmp_path)
    stored = tf.train.list_variables(str(tmp_path / "variables" / "variables"))
    shapes = [list(variable.shape) for variable in model.variables]  # with the seed of dropout
    assert sorted(shape for _, shape in stored if shape) == sorted(shapes)


def test_it_does_not_follow_the_model_that_trains_on(tmp_path):
    model = small_net()
    save(model, tmp_path)
    expected = model(X, training=False).numpy()
    model.set_weights([2.0 * weight for weight in model.get_weights()])
    (found,) = SavedModelRunner(tmp_path).logits([X])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_mirrored_model_is_saved_and_run_in_the_scope_of_its_strategy(tmp_path):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = small_net()
        save(model, tmp_path)
        (found,) = SavedModelRunner(tmp_path).logits([X])
        np.testing.assert_allclose(found, model(X, training=False), atol=1e-5)


def test_a_directory_that_is_none_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="TensorFlow cannot load"):
        SavedModelRunner(tmp_path)
