"""People: pseudonyms that need the key, and splits that keep each one's scans together."""

import stat

import pytest

from workbench.convert.people import pseudonym, read_key, read_shares, split_people

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def test_key_is_made_once_and_for_its_owner_alone(tmp_path):
    file = tmp_path / "private/key"
    key = read_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_key(file) == key
    assert read_key(tmp_path / "other/key") != key


@pytest.mark.parametrize("text", ["", "password", "ab" * 31])
def test_what_is_no_key_is_refused_and_left_alone(tmp_path, text):
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ValueError, match="is no key of this converter"):
        read_key(file)
    assert file.read_text() == text


def test_pseudonym_needs_the_key_and_tells_kinds_apart():
    one, two = b"1" * 32, b"2" * 32
    assert pseudonym(one, "person", "Anna") == pseudonym(one, "person", "Anna")
    others = {pseudonym(two, "person", "Anna"), pseudonym(one, "scan", "Anna")}
    assert pseudonym(one, "person", "Anna") not in others


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "val": 1}),
        (3, {"train": 1, "val": 1, "test": 1}),
        (10, {"train": 8, "val": 1, "test": 1}),
        (50, {"train": 40, "val": 5, "test": 5}),
    ],
)
def test_people_are_shared_out_and_small_splits_get_somebody(count, expected):
    people = [f"p{number}" for number in range(count)]
    found = list(split_people(people, SHARES, 1, {}).values())
    assert {split: found.count(split) for split in set(found)} == expected


def test_split_is_the_seed_s_and_who_was_there_stays():
    people = [f"p{number}" for number in range(20)]
    first = split_people(people, SHARES, 1, {})
    assert split_people(reversed(people), SHARES, 1, {}) == first
    assert split_people(people, SHARES, 2, {}) != first
    more = split_people([*people, *(f"q{n}" for n in range(20))], SHARES, 1, first)
    assert {person: more[person] for person in people} == first


def test_people_who_come_one_by_one_are_shared_out_as_those_who_come_at_once():
    found = {}
    for number in range(20):
        found = split_people([f"p{number}"], SHARES, 1, found)
    splits = list(found.values())
    assert [splits.count(split) for split in SHARES] == [16, 2, 2]


@pytest.mark.parametrize(
    "text", ["0.8", "0.8, 0.3", "a, b", "train=1, val=-1, test=1", "dev=1", ""]
)
def test_wrong_shares_are_refused(text):
    with pytest.raises(ValueError, match="give those of train, val and test"):
        read_shares(text)


def test_shares_are_read_in_order_or_by_name():
    assert read_shares("0.8, 0.1, 0.1") == SHARES
    assert read_shares("test=1") == {"test": 1}
    assert read_shares("0.5,0.5") == {"train": 0.5, "val": 0.5}
