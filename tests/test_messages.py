"""Messages name options where a command has them."""

import inspect

import pytest

import skad
from skad.cli.arguments import make_parser
from skad.cli.messages import _OPTION_OF, in_options

ALL = set(_OPTION_OF.values())


@pytest.mark.parametrize(
    ("message", "spoken"),
    [
        (
            "pass image_size=(289, 240), gray=True.",
            "pass --image-size 289 240, --gray.",
        ),
        ("The 'epochs' parameter of AD must be", "--epochs must be"),
        (
            'use device="cpu" or raise target_fpr.',
            "use --device cpu or raise --target-fpr.",
        ),
        ("needs a random_state; roi must", "needs a --seed; --roi must"),
        ("on this device the epochs end", "on this device the epochs end"),
        (
            "learning_rate=0.1, a/image_size/b.png",
            "learning_rate=0.1, a/image_size/b.png",
        ),
    ],
)
def test_parameters_are_named_as_options(message, spoken):
    assert in_options(message, ALL) == spoken


def test_what_a_command_has_no_option_for_stays_a_parameter():
    assert in_options("image_size=3, roi must", {"--roi"}) == "image_size=3, --roi must"


def test_every_option_that_sets_a_parameter_is_known():
    parser = make_parser()
    (commands,) = (a.choices for a in parser._actions if a.dest == "command")
    options = {
        option
        for command in commands.values()
        for action in command._actions
        for option in action.option_strings
    }
    assert set(_OPTION_OF.values()) <= options
    detector = skad.PatchAutoencoderDetector
    taken = {
        name
        for function in (detector, detector.calibrate, skad.ImageFolder)
        for name in inspect.signature(function).parameters
    }
    for name in taken:
        if f"--{name.replace('_', '-')}" in options:
            assert name in _OPTION_OF
