"""What an exported file says of itself: written, read, refused where it is wrong."""

import json
from hashlib import sha256

import pytest
from onnx_models import METADATA, model_of
from optional import optional

from skad.runtime.metadata import Metadata, digest_of

TEXT = METADATA.to_json()


def test_what_is_written_is_read():
    assert Metadata.from_json(TEXT) == METADATA
    assert json.loads(TEXT)["format"] == 1


WRONG = {
    "format": [2, 0, None, True, "1"],
    "skad_version": [None, 1],
    "image_shape": [[32], [32, 32, 3, 1], [0, 32], [32.0, 32], "32", [2**20, 2**20]],
    "dtype": ["int8", None],
    "any_size": [1, None],
    "threshold": [None, "1", float("nan"), float("inf"), True],
    "calibration_scores": [[], None, [-1, "2"], [-1, -2], [-1, float("nan")], [1.0]],
    "promised_fpr": [0, 1, -0.1, float("nan"), "0.05"],
    "is_cross": [0],
    "promise": [None],
    "roi": [5],
    "channel_order": ["BGR", None],
    "provenance": [None, []],
    "digest": [None],
    "parity": [None],
}


@pytest.mark.parametrize("name", WRONG)
def test_every_field_is_checked(name):
    fields = json.loads(TEXT)
    assert fields.keys() == WRONG.keys()
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=rf"{name}|format"):
            Metadata.from_json(json.dumps(fields | {name: value}))
    del fields[name]
    with pytest.raises(ValueError, match=f"have no .*{name}|have no format"):
        Metadata.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        (TEXT[:-5], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("null", "no format version"),
        (json.dumps(json.loads(TEXT) | {"more": 1}), "unknown fields 'more'"),
        (TEXT.replace('"format": 1', '"format": 2'), "format is 2, not 1: update skad"),
    ],
)
def test_a_hostile_text_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Metadata.from_json(text)


def test_the_digest_is_that_of_the_file_before_metadata_were_added():
    optional("onnx")
    model = model_of()
    del model.metadata_props[:]
    bare = model.SerializeToString()
    assert digest_of(bare) == sha256(bare).hexdigest()
    model.metadata_props.add(key="skad", value=TEXT)
    model.metadata_props.add(key="another", value="1")
    whole = model.SerializeToString()
    assert digest_of(whole) == sha256(bare).hexdigest()
    for end in range(1, len(whole), 7):
        try:
            assert digest_of(whole[:end]) != digest_of(whole)
        except ValueError as error:
            assert "ends early" in str(error)
    with pytest.raises(ValueError, match="not an ONNX file"):
        digest_of(b"\x0b" + bytes(100))
