"""Messages of the package, in the words of the command line."""

import re
from collections.abc import Collection

_OPTION_OF = {  # parameters that options set, also under another name
    "batch_size": "--batch-size",
    "contamination": "--contamination",
    "cost_false_alarm": "--cost-false-alarm",
    "cost_miss": "--cost-miss",
    "device": "--device",
    "epochs": "--epochs",
    "fresh": "--fresh",
    "gray": "--gray",
    "heat_maps": "--heat-maps",
    "image_size": "--image-size",
    "metric": "--metric",
    "patch_size": "--patch-size",
    "random_state": "--seed",
    "recursive": "--recursive",
    "resume": "--resume",
    "roi": "--roi",
    "target_fpr": "--target-fpr",
    "y": "--labels",
}
_VALUE = r"\((?:[^()]*)\)|\"[^\"]*\"|'[^']*'|[\w.+-]*\w"
_ASSIGNED = re.compile(rf"\b(?P<name>[a-z_]+)=(?P<value>{_VALUE})")
_OF_A_CLASS = re.compile(r"The '(?P<name>[a-z_]+)' parameter of \w+")
_SUBJECT = re.compile(r"(?<![\w.-])(?P<name>[a-z_]+)(?= (?:must|needs|holds|may)\b)")
_NAMED = re.compile(r"(?<![\w./-])(?P<name>[a-z]+(?:_[a-z]+)+)(?![\w/]|\.\w)")


def in_options(message: str, available: Collection[str]) -> str:
    """Name options where a message names parameters.

    Parameters
    ----------
    message : str
        As for Python: ``pass image_size=(289, 240), gray=True``.
    available : collection of str
        Options that the command takes; others stay parameters.

    Returns
    -------
    message : str
        As for a shell: ``pass --image-size 289 240, --gray``.
    """

    def spoken(found: re.Match[str]) -> str:
        option = _OPTION_OF.get(found["name"])
        if option not in available:
            return found[0]
        return f"{option}{_as_argument(found.groupdict().get('value'))}"

    for pattern in (_ASSIGNED, _OF_A_CLASS, _SUBJECT, _NAMED):
        message = pattern.sub(spoken, message)
    return message


def _as_argument(value: str | None) -> str:
    """Say a value of Python's as the argument of an option; True needs none."""
    if value is None or value == "True":
        return ""
    words = re.split(r"[,\s]+", value.strip("()\"'"))
    return " ".join(["", *filter(None, words)])
