"""Networks over users and items: what each of them promises, and that its file computes it."""

from pathlib import Path

import keras
import numpy as np
import pytest
from rating_file import ITEMS, USERS, write_ratings

from netopt_cli.components import build
from netopt_cli.config import compose
from netopt_cli.contracts import ExportRecipe, Network, Timing
from netopt_cli.data.ratings import load
from netopt_cli.dataset import Dataset
from netopt_cli.errors import ArchError
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.measurement import compare, export_network
from netopt_cli.measure.runtime import LitertRunner
from netopt_cli.networks import build_network

ARCHS = ["matrix_factorization", "neumf", "two_tower", "dlrm", "history_autoencoder"]
TINY = {
    "matrix_factorization": ["arch.width=4"],
    "neumf": ["arch.width=4", "arch.hidden=[8,4]"],
    "two_tower": ["arch.embedding=4", "arch.width=4", "arch.user_hidden=[8]",
                  "arch.item_hidden=[8]"],
    "dlrm": ["arch.width=4", "arch.hidden=[8]"],
    "history_autoencoder": ["arch.width=4"],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = write_ratings(tmp_path_factory.mktemp("ratings"))
    return load(0, path=str(path), user_features=["city"], user_numbers=["age"])


def network(name: str, data: Dataset, *words: str) -> Network:
    arch = compose([f"arch={name}", *TINY[name], *words]).arch
    return build_network(build(arch, where="arch", partial=True), data)


@pytest.mark.parametrize("name", ARCHS)
@pytest.mark.parametrize(
    "scheme",
    ["int8", *(pytest.param(s, marks=pytest.mark.slow) for s in ("float32", "weight_int8"))],
)
def test_a_file_computes_what_the_network_does(name, scheme, data):
    made = network(name, data)
    made = Network(made.model, ExportRecipe(scheme, calibration_samples=20))
    _, content = export_network(made, data)
    runner = LitertRunner(content, Timing(), 1)
    parity = compare(made, data, runner, scheme)  # raises where it does not
    assert parity["correlation"] > 0.9
    if scheme != "float32":
        tables = [w for w in read_file_weights(content) if w.size == USERS * 4]
        assert all(table.dtype == "int8" for table in tables)


@pytest.mark.parametrize("name", ARCHS)
def test_scores_of_a_user_do_not_depend_on_the_others_of_a_batch(name, data):
    model = network(name, data).model
    x = data.test.x[:7]
    together, alone = model(x), np.concatenate([model(x[i : i + 1]) for i in range(7)])
    assert together.shape == (7, ITEMS)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["two_tower", "dlrm"])
def test_all_that_is_known_of_a_user_counts(name, data):
    model = network(name, data).model
    x = data.test.x[:1]
    sizes = [field.size for field in data.inputs.fields]
    starts = np.cumsum([0, *sizes[:-1]])
    assert [field.name for field in data.inputs.fields] == ["user", "history", "city", "numbers"]
    for start in starts:
        other = x.copy()
        other[0, start] = 1500 if start == starts[-1] else (other[0, start] + 1) % 3
        assert not np.allclose(model(other), model(x)), f"column {start}"


def test_a_history_counts_by_what_is_in_it_alone(data):
    model = network("history_autoencoder", data).model
    x = data.test.x[:1].copy()
    length = data.inputs.fields[1].size
    items = x[0, 1 : 1 + length]
    shuffled = x.copy()
    shuffled[0, 1 : 1 + length] = np.roll(items, 3)
    np.testing.assert_allclose(model(shuffled), model(x), rtol=1e-4, atol=1e-5)
    another = x.copy()
    another[0, 0] = (x[0, 0] + 1) % USERS
    np.testing.assert_allclose(model(another), model(x))
    whose = network("history_autoencoder", data, "arch.user=true").model
    assert not np.allclose(whose(another), whose(x))


def test_the_product_of_matrix_factorization(data):
    model = network("matrix_factorization", data).model
    users, (items, bias) = model.get_layer("user"), model.get_layer("logits").get_weights()
    expected = users.embeddings.numpy()[data.test.x[:, 0]] @ items + bias
    np.testing.assert_allclose(model(data.test.x), expected, rtol=1e-4, atol=1e-5)


def test_neumf_without_dense_layers_is_a_weighted_product(data):
    model = network("neumf", data, "arch.hidden=[]").model
    users, items = (
        keras.ops.convert_to_numpy(model.get_layer(n).embeddings) for n in ("user", "item")
    )
    weights = model.get_layer("score").get_weights()[0][:, 0]
    expected = (users[data.test.x[:, 0]] * weights) @ items.T
    np.testing.assert_allclose(model(data.test.x), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_built_is_said(data, tmp_path: Path, blobs_data):
    for name in ARCHS:
        with pytest.raises(ArchError, match=rf"{name} needs samples of users.*data=ratings"):
            network(name, blobs_data)
    without = load(0, path=str(write_ratings(tmp_path)), history=0)
    with pytest.raises(ArchError, match=r"Let data\.history be more than 0"):
        network("history_autoencoder", without)
    assert network("two_tower", without).model.output_shape == (None, ITEMS)
