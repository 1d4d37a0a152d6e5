"""Ways to damage a pack."""

import json

from artifacts.pack.reader import open_pack

LAYER = "transformer_blocks.0.attn.to_out.0"  # has both kinds of factors
TENSORS = "transformer.safetensors"


def files(pack):
    return sorted(p.relative_to(pack).as_posix() for p in pack.rglob("*") if p.is_file())


def write_values(pack, name, values, place=0):
    """Overwrite values of a tensor in the transformer's file, from one position on."""
    info = open_pack(pack).headers[TENSORS].tensors[name]
    with (pack / TENSORS).open("r+b") as file:
        file.seek(info.start + place)
        file.write(values)


def set_entry(tensor, **changes):
    def edit(header):
        header[tensor].update(changes)

    return edit


def drop_tensor(path, name):
    """Remove a tensor and its bytes, leaving a well-formed file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    low, high = header.pop(name)["data_offsets"]
    for entry in header.values():
        if "data_offsets" in entry and entry["data_offsets"][0] >= high:
            entry["data_offsets"] = [place - (high - low) for place in entry["data_offsets"]]
    text = json.dumps(header).encode()
    body = data[start : start + low] + data[start + high :]
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
