import numpy as np
import pandas as pd
import pytest

from skad.common.labels import check_labels, places_of_good


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ([1, -1, 1, -1], [0, 2]),
        (np.array([1.0, -1.0, -1.0, 1.0]), [0, 3]),
        (np.array([[1], [-1], [1], [1]]), [0, 2, 3]),
        (np.array([1, -1, 1, 1], dtype=object), [0, 2, 3]),
        (pd.Series([1, -1, 1, 1], index=[9, 8, 7, 6]), [0, 2, 3]),
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([-1, -1, -1, -1], []),
        (pd.array([1, -1, 1, 1], dtype="Int64"), [0, 2, 3]),
        ([0.1, 0.2, np.nan, 0.3], [0, 1, 2, 3]),
        ([0, 1, 2, 1], [0, 1, 2, 3]),
    ],
)
def test_only_labels_leave_images_out(y, expected):
    assert places_of_good(y, 4).tolist() == expected


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([0, 1, 1, 0], "0, 1"),
        ([2.5, 7, 7, 7], "2.5, 7.0"),
        ([1, -1, 0, 1], "-1, 0, 1"),
        ([0, 0, 0, 0], "0"),
        ([True, False, True, True], "False, True"),
        (np.ones(4, bool), "True"),
        (pd.array([True, True, True, True], dtype="boolean"), "True"),
        (np.zeros((4, 3, 3)), "0.0"),
    ],
)
def test_labels_of_another_kind_are_ignored_with_a_warning(y, told):
    words = rf"got \[{told}\]\. Pass y = np\.where\(bad, -1, 1\).*trains? on|ignored"
    with pytest.warns(UserWarning, match=words):
        assert places_of_good(y, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="must hold"):
        check_labels(y, 4)


def test_numbers_of_kinds_of_defects_are_ignored_with_a_warning():
    with pytest.warns(UserWarning, match=r"got \[0, 1, 2\]\. Pass y = np\.where"):
        assert len(places_of_good([0, 0, 0, 0, 1, 2], 6)) == 6
    with pytest.raises(ValueError, match="1 of 7 are missing, the first at place 6"):
        places_of_good([0, 0, 0, 0, 1, 2, np.nan], 7)


MISSING = r"label for every image.* 1 of 4 are missing, the first at place 2"
NAMES = r"y must hold the labels \+1 .* np\.where\(bad, -1, 1\)"


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([1, -1, np.nan, 1], MISSING),
        ([1, -1, None, 1], MISSING),
        (pd.array([1, -1, pd.NA, 1], dtype="Int64"), MISSING),
        (pd.array([False, True, pd.NA, True], dtype="boolean"), MISSING),
        ([0, 1, np.nan, 1], MISSING),
        (["1", "-1", "1", "1"], NAMES),
        (["good", "bad", "good", "good"], NAMES),
        (pd.Categorical(["good", "crack", "stain", "good"]), NAMES),
        ("anything", NAMES),
    ],
)
def test_missing_labels_and_names_are_an_error(y, words):
    for check in (places_of_good, check_labels):
        with pytest.raises(ValueError, match=words if np.ndim(y) else "must hold"):
            check(y, 4)


def test_labels_for_other_images_are_an_error():
    with pytest.raises(ValueError, match=r"one label an image, 4 in all; .* \(3,\)"):
        places_of_good([1, 1, -1], 4)


def test_what_came_is_told_and_no_more_of_it_than_can_be_read():
    with pytest.raises(ValueError, match=r"got \[0, 1\]\. Pass y = np\.where"):
        check_labels([0, 1, 1, 0], 4)
    with pytest.raises(ValueError, match="must hold the labels") as error:
        check_labels(np.arange(10_000), 10_000)
    assert len(str(error.value)) < 200


def test_a_table_of_one_column_is_that_column():
    y = pd.DataFrame({"label": [1, -1, 1]})
    assert check_labels(y, 3).tolist() == [1, -1, 1]
    with pytest.raises(ValueError, match=r"one label an image, 3 in all; .* \(3, 2\)"):
        check_labels(np.ones((3, 2)), 3)


def test_all_true_is_no_label():
    with pytest.raises(ValueError, match=r"got \[True\]"):
        check_labels(np.ones(3, bool), 3)


def test_masked_labels_are_refused():
    y = np.ma.masked_less([1, 1, -1], 0)
    for check in (check_labels, places_of_good):
        with pytest.raises(ValueError, match="y must have no mask"):
            check(y, 3)
