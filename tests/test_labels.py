"""Which y are labels, and which are ignored, warned of or refused."""

import numpy as np
import pandas as pd
import pytest

from skad.common.labels import check_labels, places_of_good


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array([1.0, -1.0, -1.0, 1.0]), [0, 3]),
        (np.array([[1], [-1], [1], [1]]), [0, 2, 3]),  # a table of one column
        (pd.Series([1, -1, 1, 1], index=[9, 8, 7, 6]), [0, 2, 3]),
        (pd.array([1, -1, 1, 1], dtype="Int64"), [0, 2, 3]),
        ([-1, -1, -1, -1], []),
        ([0.1, 0.2, np.nan, 0.3], [0, 1, 2, 3]),  # a continuous target
    ],
)
def test_only_labels_leave_images_out(y, expected):
    assert places_of_good(y, 4).tolist() == expected


@pytest.mark.parametrize(
    ("y", "told"),
    [
        ([0, 1, 1, 0], "0, 1"),
        ([1, -1, 0, 1], "-1, 0, 1"),
        ([0, 0, 0, 1, 2, 3], "0, 1, 2, 3"),  # kinds of defects
        ([True, False, True, True], "False, True"),
        (pd.array([True, True, True, True], dtype="boolean"), "True"),
    ],
)
def test_other_labels_are_ignored_with_a_warning(y, told):
    y = [*y, 0, 0] if len(y) == 6 else y
    words = rf"got \[{told}\]\. Pass y = np\.where\(bad, -1, 1\).* y is ignored"
    with pytest.warns(UserWarning, match=words):
        assert len(places_of_good(y, len(y))) == len(y)
    with pytest.raises(ValueError, match=rf"must hold the labels .* \[{told}\]"):
        check_labels(y, len(y))


@pytest.mark.parametrize(
    "y",
    [
        [1, -1, np.nan, 1],
        [0, 1, np.nan, 1],
        pd.array([1, -1, pd.NA, 1], dtype="Int64"),
        ["1", "-1", "1", "1"],
        pd.Categorical(["good", "crack", "stain", "good"]),
    ],
)
def test_missing_labels_and_names_are_an_error(y):
    words = r"y must hold the labels \+1 .* np\.where\(bad, -1, 1\).* without a label"
    for check in (places_of_good, check_labels):
        with pytest.raises(ValueError, match=words):
            check(y, 4)


def test_what_came_is_told_briefly():
    with pytest.raises(ValueError, match=r"one label an image, 4 in all; .* \(3,\)"):
        places_of_good([1, 1, -1], 4)
    with pytest.raises(ValueError, match=r"one label an image, 3 in all; .* \(3, 2\)"):
        check_labels(np.ones((3, 2)), 3)
    with pytest.raises(ValueError, match="must hold the labels") as error:
        check_labels(np.arange(10_000), 10_000)
    assert len(str(error.value)) < 300
    with pytest.raises(ValueError, match="y must have no mask"):
        places_of_good(np.ma.masked_less([1, 1, -1], 0), 3)
