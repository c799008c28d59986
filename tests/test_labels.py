import numpy as np
import pandas as pd
import pytest

from skad._labels import check_labels, places_of_good


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
        ([0, 1, 1, 0], [0, 1, 2, 3]),
        ([1, -1, 0, 1], [0, 1, 2, 3]),
        ([1, -1, np.nan, 1], [0, 1, 2, 3]),
        (["1", "-1", "1", "1"], [0, 1, 2, 3]),
        ([True, False, True, True], [0, 1, 2, 3]),
        (np.ones(4, bool), [0, 1, 2, 3]),
        (np.ones((4, 3, 3)), [0, 1, 2, 3]),
        ("anything", [0, 1, 2, 3]),
    ],
)
def test_only_labels_leave_images_out(y, expected):
    assert places_of_good(y, 4).tolist() == expected


def test_labels_for_other_images_are_an_error():
    with pytest.raises(ValueError, match=r"one label an image, 4 in all; .* \(3,\)"):
        places_of_good([1, 1, -1], 4)


def test_what_came_is_told_and_no_more_of_it_than_can_be_read():
    with pytest.raises(ValueError, match=r"got \[0, 1\]\. Where 1 means anomalous"):
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
