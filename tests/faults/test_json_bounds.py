"""JSON that is as large as it may be, and wrong everywhere: bounded time and memory.

Each case runs in a process of its own; what that process says is its own peak above what it had
after the imports.
"""

import subprocess
import sys

import pytest

from artifacts.files.safetensors_io import MAX_HEADER_BYTES
from schemas.errors import PackError
from schemas.json_io import MAX_JSON_BYTES, MAX_JSON_KEYS, MAX_JSON_VALUES, read_json_strict

MIB = 2**20
KEYS, VALUES = MAX_JSON_KEYS - 10, MAX_JSON_VALUES - 10

SCRIPT = """
import resource, sys, time
from pathlib import Path
from artifacts.autoencoder.config import AutoencoderConfig
from artifacts.dit4sr.config import TransformerConfig
from artifacts.files.safetensors_io import read_header
from schemas.bit_grid import BitGrid
from schemas.calibration import Calibration
from schemas.errors import QPackError, PackError
from schemas.json_io import read_json_file, validate
from schemas.manifest import Manifest
path, kind = Path(sys.argv[1]), sys.argv[2]
models = {m.__name__: m for m in (AutoencoderConfig, TransformerConfig, BitGrid, Manifest)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, started = peak(), time.process_time()
try:
    if kind == "header":
        read_header(path)
    else:
        content = read_json_file(path, where="file", error=PackError)
        validate(models[kind], content, where="file", error=PackError)
    print("accepted")
except QPackError as error:
    print(str(error)[:300])
print(time.process_time() - started)
print((peak() - before) / 1024)
"""


def many(item, count):
    return ",".join(item(number) for number in range(count))


CASES = {
    "unknown keys": ("Manifest", "{" + many('"{:x}":0'.format, KEYS) + "}"),
    "layers of nothing": ("Manifest", '{"layers":{' + many('"{:x}":{{}}'.format, 9999) + "}}"),
    "layers of unknown keys": (
        "Manifest",
        '{"layers":{' + many(lambda n: f'"{n:x}":{{"a":0,"b":0,"c":0}}', 9999) + "}}",
    ),
    "settings of lists": (
        "Manifest",
        '{"recipe":{"name":"a","settings":{'
        + many(lambda n: f'"{n}":[{many(lambda _: "[]", 9000)}]', 10)
        + "}}}",
    ),
    "wrong settings": (
        "Manifest",
        '{"recipe":{"name":"a","settings":{' + many('"{:x}":{{}}'.format, 9999) + "}}}",
    ),
    "wrong bits": (
        "BitGrid",
        '{"layers":{'
        + many(
            lambda n: f'"{n}":{{"weight_bits":4,"activation_bits":[{many(lambda _: "9", 9990)}]}}',
            99,
        )
        + "}}",
    ),
    "wrong timesteps": ("BitGrid", '{"timesteps":[' + many(lambda _: "-1", 9999) + "]}"),
    "wrong blocks": (
        "TransformerConfig",
        '{"dual_attention_layers":[' + many(lambda _: "-1", VALUES) + "]}",
    ),
    "wrong channels": (
        "AutoencoderConfig",
        '{"block_out_channels":[' + many(lambda _: "{}", KEYS) + "]}",
    ),
    "tensors": (
        "header",
        "{"
        + many(
            lambda n: f'"{n:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', KEYS // 4 - 1
        )
        + "}",
    ),
    "one tensor of many dimensions": (
        "header",
        '{"a":{"dtype":"U8","data_offsets":[0,0],"shape":[' + many(lambda _: "0", VALUES) + "]}}",
    ),
}


@pytest.mark.parametrize(("kind", "text"), CASES.values(), ids=CASES)
def test_wrong_everywhere_takes_little(tmp_path, kind, text):
    data = text.encode()
    file = tmp_path / "file"
    if kind == "header":
        assert len(data) <= MAX_HEADER_BYTES
        data = len(data).to_bytes(8, "little") + data
    assert len(data) <= MAX_JSON_BYTES + 8
    file.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, file, kind], capture_output=True, text=True, check=True
    )
    said, seconds, mebibytes = done.stdout.splitlines()
    assert (said == "accepted") == (kind == "header" and '"a":{"dtype"' not in text[:20])
    assert float(seconds) < 2
    assert float(mebibytes) < 200


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[" + b"[]," * MAX_JSON_KEYS + b"[]]", "containers"),
        (b"[" + b'{"a":0},' * (MAX_JSON_KEYS + 1) + b"0]", "keys"),
        (b"[" + b"1," * (MAX_JSON_VALUES + 1) + b"1]", "values"),
        (b'["' + b'","' * 300_000 + b'"]', 'characters "'),
        (b'["' + b"\\n" * 200_000 + b'"]', r"characters \\"),
        (b'"' * (3 * MIB), 'characters "'),
    ],
)
def test_too_much_of_anything_is_refused_before_it_is_parsed(data, what):
    with pytest.raises(PackError, match=rf"file: \d+ {what} in JSON, more than the limit of"):
        read_json_strict(data, where="file", error=PackError)


def test_signs_within_texts_do_not_count():
    text = "[{,:" * 200_000
    value = read_json_strict(f'["{text}"]'.encode(), where="file", error=PackError)
    assert value == [text]
