import keras

from netopt_cli.contracts import ExportRecipe
from netopt_cli.export.kernel_ops import kernel_ops
from netopt_cli.export.litert import freeze, to_litert

layers = keras.layers


def operations(model: keras.Model) -> dict[str, list[str]]:
    content = to_litert(freeze(model), ExportRecipe())
    return {path: [op.operation for op in ops] for path, ops in kernel_ops(content, model).items()}


def test_kernels_of_convolutions_with_batch_norm_folded_in():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, groups=2, name="grouped")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(layers.DepthwiseConv2D(3, name="depthwise")(x))
    x = layers.Conv2DTranspose(6, 3, name="transposed")(x)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten()(x)))
    # A negative factor and a channel that BatchNorm has scaled to nothing.
    model.get_layer("norm").gamma.assign([2.0, -0.3, 0.0, 1.0])
    assert operations(model) == {
        "grouped/kernel": ["CONV_2D"],
        "depthwise/kernel": ["DEPTHWISE_CONV_2D"],
        "transposed/kernel": ["TRANSPOSE_CONV"],
        "separable/depthwise_kernel": ["DEPTHWISE_CONV_2D"],
        "separable/pointwise_kernel": ["CONV_2D"],
        "logits/kernel": ["FULLY_CONNECTED"],
    }


def test_kernels_of_sequences():
    inputs = keras.Input((6,))
    x = layers.Embedding(10, 8, name="embedding")(inputs)
    x = layers.Conv1D(8, 3, padding="same", name="conv")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(4, unroll=True, name="lstm")(x)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    found = operations(model)
    assert found["embedding/embeddings"] == ["GATHER"]
    assert found["conv/kernel"] == ["CONV_2D"]
    assert found["lstm/lstm_cell/kernel"] == ["FULLY_CONNECTED"] * 6
    assert set(found["lstm/lstm_cell/recurrent_kernel"]) == {"FULLY_CONNECTED"}
    for projection in ("query", "key", "value", "attention_output"):
        assert found[f"attention/{projection}/kernel"] == ["FULLY_CONNECTED"]


def test_a_shared_kernel_has_all_its_uses():
    inputs = keras.Input((8,))
    shared = layers.Dense(8, name="shared")
    x = shared(layers.ReLU()(shared(inputs)))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    assert operations(model) == {
        "shared/kernel": ["FULLY_CONNECTED"] * 2,
        "logits/kernel": ["FULLY_CONNECTED"],
    }


def test_kernels_of_one_shape_are_told_apart():
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="first")(inputs)
    x = layers.Dense(8, name="second")(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(8, name="third")(layers.ReLU()(x)))
    content = to_litert(freeze(model), ExportRecipe())
    found = kernel_ops(content, model)
    outputs = [op.output for path in found for op in found[path]]
    assert len(set(outputs)) == 3
    order = [path.partition("/")[0] for path in found]
    assert all(
        name in output or output == "Identity" for name, output in zip(order, outputs, strict=True)
    )


def test_another_network_is_not_recognized():
    def network(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((8,))
        return keras.Model(inputs, layers.Dense(3, name="logits")(inputs))

    content = to_litert(freeze(network(0)), ExportRecipe())
    assert kernel_ops(content, network(1)) == {"logits/kernel": []}
