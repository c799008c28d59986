"""Model files, opened and written again for tests."""

import json
import struct

from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as to_bytes

from skad.model_io.model_file import checksum


def opened(content):
    """Header of skad and arrays of a file."""
    outer = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    header = json.loads(outer["__metadata__"]["skad"])
    return header, {name: array.copy() for name, array in arrays_of(content).items()}


def write(path, header, arrays):
    """Write a file whose checksum is right."""
    header = header | {"checksum": checksum(header, arrays)}
    path.write_bytes(to_bytes(arrays, {"skad": json.dumps(header)}))
