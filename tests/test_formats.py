"""What decoders say stays with them, and what others say is heard."""

import warnings

from skad.images.formats import quiet


def test_warnings_of_decoders_alone_are_kept_back():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with quiet(), quiet():
            warnings.warn_explicit("a", UserWarning, "", 1, module="PIL.Image")
            warnings.warn_explicit("b", UserWarning, "", 1, module="other")
        assert warnings.filters == filters
    assert [str(one.message) for one in record] == ["b"]
