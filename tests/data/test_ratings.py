"""Ratings: what is read, what is held back of it, and what a sample and its labels say."""

import json
from pathlib import Path

import numpy as np
import pytest
from rating_file import EACH, ITEMS, USERS, write_ratings

from netopt_cli.data.ratings import load
from netopt_cli.errors import DataError
from netopt_cli.ranking_labels import seen_in, wanted_in

HEADER = "user,item,rating,timestamp"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(write_ratings(tmp_path))


def written(folder: Path, text: str | bytes) -> str:
    file = folder / "own.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def many(extra: str = "") -> str:
    """Ratings of 6 users and 8 items, in lines 2 to 49, and then others."""
    lines = [
        f"a{u},b{i},{1 + (u + i) % 5},{29 * (8 * u + i) % 53}" for u in range(6) for i in range(8)
    ]
    return "\n".join([HEADER, *lines]) + "\n" + extra


LIKED = sum(1 + (u + i) % 5 >= 2 for u in range(6) for i in range(8))
"""Of them, those of 2 or more; a1 gives 3 to b1, in line 11."""


def count(data) -> int:
    return sum(len(wanted_in(y)) for s in (data.train, data.validation, data.test) for y in s.y)


def names(data, numbers):
    return {data.class_names[number] for number in numbers}


def split_names(data):
    """By user number: the names of the items to find in each split, and those left out."""
    return {
        split: {
            int(x[0]): (names(data, wanted_in(y)), names(data, seen_in(y)))
            for x, y in zip(source.x, source.y, strict=True)
        }
        for split, source in (("train", data.train), ("validation", data.validation),
                              ("test", data.test))
    }  # fmt: skip


def test_each_rating_is_in_one_split_and_rankings_leave_out_what_was_seen(path):
    data = load(0, path=path)
    splits = split_names(data)
    for user in range(USERS):
        (train, none), (validation, seen), (test, seen_in_test) = (
            splits[split][user] for split in ("train", "validation", "test")
        )
        assert none == set() and seen == train and seen_in_test == train | validation
        assert not train & validation and not (train | validation) & test
        assert len(train | validation | test) == EACH
        assert len(test) == 4 and len(validation) in {1, 2}  # a quarter, a tenth of twelve


def test_a_history_has_what_was_seen_the_latest_first(path):
    data = load(0, path=path)
    lines = [line.split(",") for line in Path(path).read_text().splitlines()[1:]]
    time = {(user, item): int(when) for user, item, _, when, *_ in lines}
    field = data.inputs.fields[1]
    assert (field.name, field.kind, field.vocabulary) == ("history", "tokens", ITEMS + 2)
    for source in (data.validation, data.test):
        for x, y in zip(source.x, source.y, strict=True):
            history = [data.class_names[token - 2] for token in x[1:] if token]
            assert set(history) == names(data, seen_in(y))
            user = data.reader.users[x[0]]
            when = [time[user, item] for item in history]
            assert when == sorted(when, reverse=True)
    assert load(0, path=path, history=3).train.x.shape == (USERS, 4)
    assert load(0, path=path, history=0).train.x.shape == (USERS, 1)


def test_items_are_numbered_by_how_often_they_occur_outside_the_test(path):
    data = load(0, path=path)
    seen = np.concatenate([seen_in(y) for y in data.test.y])
    counts = np.bincount(seen, minlength=ITEMS)
    assert (np.diff(counts) <= 0).all()


def test_seeds_share_the_test_split_and_not_the_validation_split(path):
    one, other = load(0, path=path), load(1, path=path)
    assert (one.test.x == other.test.x).all() and (one.test.y == other.test.y).all()
    assert split_names(one)["validation"] != split_names(other)["validation"]
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != load(0, path=path, split="leave_one_out").fingerprint
    assert one.fingerprint != load(0, path=path, min_rating=4).fingerprint
    again = load(0, path=path)
    assert (one.train.x == again.train.x).all()


def test_leave_one_out_holds_back_the_last_and_the_one_before(path):
    data = load(0, path=path, split="leave_one_out")
    lines = [line.split(",") for line in Path(path).read_text().splitlines()[1:]]
    last = {user: item for user, item, *_ in lines}  # in the order of time
    tested = {name for test, _ in split_names(data)["test"].values() for name in test}
    assert tested == set(last.values())
    assert all(len(test) == 1 for test, _ in split_names(data)["test"].values())
    assert all(len(found) == 1 for found, _ in split_names(data)["validation"].values())


def test_temporal_holds_back_the_latest_of_all(tmp_path):
    path = written(tmp_path, many("new,b0,4,90\nnew,b1,4,91\n"))
    data = load(0, path=path, split="temporal")
    assert data.notes == (
        "2 of 12 test ratings were left out, for 1 users and 0 items occur nowhere else",
    )
    times = {(f"a{u}", f"b{i}"): 29 * (8 * u + i) % 53 for u in range(6) for i in range(8)}
    latest = sorted(times.values())[-10:]
    splits = split_names(data)
    assert sum(len(found) for found, _ in splits["test"].values()) == 10
    # What the users of the test split are known to have seen is all that they rated before.
    known = sum(len(seen) for _, seen in splits["test"].values())
    late = {user for (user, _), time in times.items() if time >= latest[0]}
    assert known == sum(time < latest[0] for (user, _), time in times.items() if user in late)
    with pytest.raises(DataError, match=r"line 50: user 'new' occurs in the test split alone"):
        load(0, path=path, split="temporal", unseen="refuse")


def test_a_validation_split_has_no_user_or_item_of_its_own(tmp_path):
    for seed in range(5):
        data = load(seed, path=written(tmp_path, many("a0,rare,5,1\na9,b0,3,2\n")))
        items = {name for train, _ in split_names(data)["train"].values() for name in train}
        for user, (found, _) in split_names(data)["validation"].items():
            assert found <= items and user in split_names(data)["train"]


def test_the_latest_of_two_ratings_counts(tmp_path):
    path = written(tmp_path, many("a1,b1,1,99\n"))
    data = load(0, path=path, min_rating=2)
    assert "1 ratings of an item rated again were left out" in data.notes
    assert f"{48 - LIKED + 1} ratings below 2 were left out" in data.notes
    assert count(data) == LIKED - 1
    again = load(0, path=written(tmp_path, many("a1,b1,1,-1\n")), min_rating=2)
    assert count(again) == LIKED
    with pytest.raises(
        DataError, match=r"line 50: user 'a1' has rated item 'b1' before, in line 11"
    ):
        load(0, path=path, duplicates="refuse")


def test_of_duplicates_without_a_time_the_later_line_counts(tmp_path):
    text = "\n".join(line.rpartition(",")[0] for line in many("a1,b1,1,0\n").splitlines())
    data = load(0, path=written(tmp_path, text), timestamp_column=None, min_rating=2)
    assert count(data) == LIKED - 1


def test_columns_of_a_file_without_names_in_another_order(tmp_path):
    lines = [f"b{i}\ta{u}" for u in range(6) for i in range(8)]
    path = written(tmp_path, "\n".join(lines))
    data = load(0, path=path, columns=["item", "user"], delimiter="\t", rating_column=None,
                timestamp_column=None)  # fmt: skip
    assert sorted(data.class_names) == [f"b{i}" for i in range(8)]


def test_quotes_newlines_and_a_byte_order_mark(tmp_path):
    text = many('"a0","The ""Good"",\nthe Bad",4,99\na1,b1,nonsense,4\n')
    with pytest.raises(DataError, match=r"own\.csv, line 52: 'rating' must be a finite number"):
        load(0, path=written(tmp_path, "\ufeff" + text))
    data = load(
        0, path=written(tmp_path, "\ufeff" + text.replace("nonsense", "4")), test_fraction=0.1
    )
    assert 'The "Good",\nthe Bad' in data.class_names


BROKEN = {
    "": "has no ratings",
    HEADER: "has no ratings",
    "user,item\na,b\n": r"has no column 'rating'.*It has: user, item.*data\.user_column",
    "user,itme,rating,timestamp\na,b,1,1\n": "no column 'item'. Did you mean 'itme'",
    many("a0,b0,5\n"): r"line 50: needs 4 cells .*Received: 3",
    many("a0,b9,nan,3\n"): r"line 50: 'rating' must be a finite number\. Received: 'nan'",
    many("a0,b9,4,soon\n"): r"line 50: 'timestamp' must be a finite number\. Received: 'soon'",
    many("a0,,4,3\n"): "line 50: 'item' is empty",
    many(" ,b1,4,3\n"): "line 50: 'user' is empty",
    many('a0,"b9,4,3\n'): "line 50: unexpected end of data",
    many("a0,b9,4,3\n").encode() + b"a1,\xe9,3,3\n": "line 51: is not UTF-8",
    HEADER + "\na,b,1,1\n": "1 ratings leave the .* split empty",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_refused_with_the_line(text, tmp_path):
    with pytest.raises(DataError, match=BROKEN[text]):
        load(0, path=written(tmp_path, text))


def test_what_is_known_of_users(path):
    data = load(0, path=path, user_features=["city"], user_numbers=["age"])
    _, _, city, numbers = data.inputs.fields
    assert (city.kind, city.vocabulary, numbers.kind) == ("ids", 3, "values")
    values = data.train.x[:, -1] * numbers.multiply
    assert abs(values.mean()) < 1e-3 and abs(values.std() - 1) < 1e-3
    with pytest.raises(DataError, match=r"line 2: 'city' must be a finite number"):
        load(0, path=path, user_numbers=["city"])


def test_other_tasks_are_refused(path, netopt):
    result = netopt("train", "data=ratings", f"data.path={path}", "task=classification",
                    "arch=matrix_factorization")  # fmt: skip
    assert result.returncode == 2
    assert "data=ratings needs task=ranking. Received: task=classification" in result.stderr


def test_a_run_recommends_what_a_user_has_not_seen(path, netopt):
    run = netopt("train", "arch=history_autoencoder", "arch.width=8", "data=ratings",
                 f"data.path={path}", "train.epochs=15", "train.learning_rate=0.03", "task.k=5",
                 "opt=[quantize]", "target.timed_runs=30", "control=false", "--json")  # fmt: skip
    assert run.returncode == 0, run.stderr
    (row, quantized) = json.loads(run.stdout.splitlines()[0])["rows"]
    assert row["metric"] == "ndcg_at_5" and 0 < row["hit_rate_at_5"] <= 1
    assert row["ndcg_at_5"] > 0.3  # by chance 0.14; of items of one's own taste 0.29
    assert quantized["ndcg_at_5"] > row["ndcg_at_5"] - 0.1
    record = json.loads((netopt.folder / run.stdout.splitlines()[-1] / "record.json").read_text())
    assert record["dataset"]["protocol"] == "full ranking"
    said = netopt("predict", run.stdout.splitlines()[-1], "--input", "u4", "-i", "u7", "--json")
    assert said.returncode == 0, said.stderr
    data = load(0, path=path)
    for user, line in zip(("u4", "u7"), said.stdout.splitlines(), strict=True):
        items = json.loads(line)["items"]
        assert len(items) == 5
        own = [item for item in items if int(item[1:]) % 2 == int(user[1:]) % 2]
        assert len(own) >= 4
        assert not set(items) & {
            data.class_names[token - 2]
            for token in dict(data.reader.read([user]))[user][1:] if token
        }  # fmt: skip
    unknown = netopt("predict", run.stdout.splitlines()[-1], "--input", "u444")
    assert unknown.returncode == 2 and "unknown user 'u444'. Did you mean 'u44'" in unknown.stderr
