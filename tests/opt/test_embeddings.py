"""Smaller tables for embeddings: what each step leaves, in the network and in the file."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from rating_file import USERS, write_ratings
from stage_bench import Bench

from netopt_cli.contracts import ExportRecipe, Network, Preflight
from netopt_cli.dataset import Normalization
from netopt_cli.errors import InputError
from netopt_cli.graph.embeddings import look_ups
from netopt_cli.measure.file_weights import read_file_weights
from netopt_cli.measure.measurement import export_network
from netopt_cli.opt.hash_embeddings import HashEmbeddings
from netopt_cli.opt.lowrank import LowRank
from netopt_cli.opt.rare_rows import RareRows

layers = keras.layers
ROWS, WIDTH, LENGTH = 120, 16, 5


def build(shape: tuple[int, ...] = (LENGTH,), classes: int = 3) -> Network:
    source = keras.Input(shape, dtype="int32", name="input")
    words = layers.Embedding(ROWS, WIDTH, name="words")
    x = layers.Concatenate(axis=1)([words(source[:, :2]), words(source[:, 2:])])
    x = layers.Flatten()(layers.Dense(4, name="dense")(x))
    return Network(keras.Model(source, layers.Dense(classes, name="logits")(x), name="tiny"))


def saved(model: keras.Model, folder: Path) -> Path:
    model.save(folder / "saved.keras")
    return folder / "saved.keras"


def planned(stage, network: Network) -> keras.Model:
    return stage.plan(Preflight("it", network, is_first=True, build=None)).model


IDS = Normalization(dtype="int32")
SAMPLES = np.random.default_rng(0).integers(0, ROWS, (50, LENGTH)).astype(np.int32)


@pytest.mark.parametrize("combine", ["add", "multiply"])
def test_each_id_has_a_pair_of_rows(combine):
    network = build()
    remainders = 28
    quotients = -(-ROWS // remainders)
    random = np.random.default_rng(0)
    first = random.uniform(0.5, 1, (remainders, WIDTH))
    second = random.uniform(0.5, 1, (quotients, WIDTH))
    ids = np.arange(ROWS)
    pair = first[ids % remainders], second[ids // remainders]
    made_of_pairs = pair[0] * pair[1] if combine == "multiply" else pair[0] + pair[1]
    network.model.get_layer("words").set_weights([made_of_pairs])
    # A table of that form is found again as it was: 28 + 5 rows are the most that a ratio of 0.28
    # of 120 lets.
    small = planned(HashEmbeddings(ratio=0.28, combine=combine), network)
    tables = [small.get_layer(name).embeddings for name in ("words", "words_quotient")]
    assert [table.shape[0] for table in tables] == [remainders, quotients]
    np.testing.assert_allclose(small(SAMPLES), network.model(SAMPLES), atol=1e-4)


def test_hashed_ids_of_one_remainder_are_the_same():
    network = build()
    small = planned(HashEmbeddings(method="hash", ratio=0.25), network)
    table, before = small.get_layer("words").embeddings, network.model.get_layer("words").embeddings
    assert table.shape == (30, WIDTH)
    np.testing.assert_allclose(table[7], np.mean(before.numpy()[7::30], axis=0), atol=1e-6)
    np.testing.assert_array_equal(small(SAMPLES % 30), small(SAMPLES % 30 + 30))


def test_a_fitted_table_is_nearer_the_more_rows_it_has():
    network = build()

    def error(**settings) -> float:
        small = planned(HashEmbeddings(**settings), network)
        return float(np.square(small(SAMPLES) - network.model(SAMPLES)).mean())

    errors = [error(ratio=ratio, combine="add") for ratio in (0.2, 0.5, 0.8)]
    assert errors == sorted(errors, reverse=True)
    assert error(ratio=0.5) < error(ratio=0.2)


def test_rare_rows_become_one(blobs_data, tmp_path):
    network = build()
    counts = look_ups(network.model, network.model.get_layer("words"), [SAMPLES[:20], SAMPLES[20:]])
    np.testing.assert_array_equal(counts, np.bincount(SAMPLES.reshape(-1), minlength=ROWS))
    assert look_ups(keras.Sequential([keras.Input((LENGTH,)), network.model]),
                    network.model.get_layer("words"), [SAMPLES]) is None  # fmt: skip

    split = replace(blobs_data.train, x=SAMPLES, y=blobs_data.train.y[:50])
    data = replace(blobs_data, shape=(LENGTH,), train=split, normalization=IDS)
    bench = Bench(data)
    model = RareRows(ratio=0.75, epochs=0)(network, bench).model
    table = model.get_layer("words").embeddings.numpy()
    before = network.model.get_layer("words").embeddings.numpy()
    assert table.shape == (31, WIDTH)
    order = np.argsort(-counts, kind="stable")
    common, rare = order[:30], order[30:]
    np.testing.assert_allclose(table[-1], before[rare].mean(axis=0), atol=1e-6)
    only = np.resize(common, (10, LENGTH)).astype(np.int32)
    np.testing.assert_allclose(model(only), network.model(only), atol=1e-5)
    of_rare = [np.full((1, LENGTH), one, np.int32) for one in rare[:2]]
    np.testing.assert_array_equal(model(of_rare[0]), model(of_rare[1]))
    assert "words: 120 rows → 31" in bench.notes[0]
    assert keras.saving.load_model(saved(model, tmp_path), compile=False)(only).shape == (10, 3)


def test_low_rank_rows():
    network = build()
    words = network.model.get_layer("words")
    random = np.random.default_rng(0)
    words.set_weights([random.normal(size=(ROWS, 4)) @ random.normal(size=(4, WIDTH))])
    small = planned(LowRank(embeddings=0.25, exclude=("dense", "logits")), network)
    assert small.get_layer("words_basis").embeddings.shape == (ROWS, 4)
    assert small.get_layer("words").kernel.shape == (4, WIDTH)
    np.testing.assert_allclose(small(SAMPLES), network.model(SAMPLES), rtol=1e-3, atol=1e-4)
    as_it_was = planned(LowRank(rank_by="ratio", amount=0.5), network)
    assert as_it_was.get_layer("words").embeddings.shape == (ROWS, WIDTH)


STAGES = [
    HashEmbeddings(ratio=0.25),
    HashEmbeddings(method="hash", ratio=0.25),
    RareRows(ratio=0.75),
    LowRank(embeddings=0.2, exclude=("dense", "logits")),
]


@pytest.mark.parametrize(
    "scheme",
    ["weight_int8", *(pytest.param(s, marks=pytest.mark.slow) for s in ("float32", "int8"))],
)
@pytest.mark.parametrize("stage", STAGES, ids=repr)
def test_the_file_is_smaller_and_computes_the_same(stage, scheme, blobs_data):
    split = replace(blobs_data.train, x=SAMPLES, y=blobs_data.train.y[:50])
    data = replace(blobs_data, shape=(LENGTH,), train=split, normalization=IDS)
    recipe = ExportRecipe(scheme, calibration_samples=50)
    before = Network(build().model, recipe)
    after = Network(planned(stage, before), recipe)
    sizes = []
    for network in (before, after):
        _, content = export_network(network, data)
        weights = read_file_weights(content)
        sizes.append(sum(w.size for w in weights if w.size >= 100))
        if scheme != "float32":
            assert {w.dtype for w in weights if w.size >= 100} == {"int8"}
    assert sizes[1] < 0.6 * sizes[0]


def test_what_cannot_work_is_refused_before_training(blobs_data):
    plain = Network(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    for stage in (HashEmbeddings(), RareRows()):
        with pytest.raises(InputError, match=r"finds no embedding .* it has none"):
            planned(stage, plain)
        with pytest.raises(InputError, match=r"exclude matches no layer\. Received: wrods"):
            planned(replace(stage, exclude=("wrods",)), build())
        for given in ("zeros", "codebook", "fake quantization"):
            after = replace(build(), properties=frozenset({given}))
            preflight = Preflight("it", after, is_first=False, build=None, made_by={given: "x"})
            with pytest.raises(InputError, match=r"'it' cannot come after 'x'.*put 'it' before it"):
                stage.plan(preflight)


@pytest.mark.slow
def test_from_the_command_line(netopt, tmp_path):
    path = write_ratings(tmp_path)
    words = ["train", "arch=neumf", "arch.width=8", "arch.hidden=[16]", "data=ratings",
             f"data.path={path}", "train.epochs=1", "target.timed_runs=30", "control=false",
             "opt.hash_embeddings.epochs=1", "opt.rare_rows.epochs=1", "--json"]  # fmt: skip
    run = netopt(
        *words, "opt=[rare_rows,hash_embeddings,quantize]", "opt.quantize.scheme=weight_int8"
    )
    assert run.returncode == 0, run.stderr
    assert f"user: {USERS} rows → 31" in run.stderr
    refused = netopt(*words[:-3], "opt=[prune,hash_embeddings]", "--dry-run")
    assert refused.returncode == 2 and "put 'hash_embeddings' before it" in refused.stderr
