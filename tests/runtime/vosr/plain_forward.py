"""VOSR's forward pass and sampling a second time: numpy in float64, from the equations.

An oracle that shares no code with the runtime and none with torch: every head and every pair of
rotated channels in a loop. It follows the description in docs/families.md.

``state`` is a checkpoint: name -> float64 array, with the published names.
"""

import math

import numpy as np

EPS = 1e-6


def sample(state, config, noise, control, features, steps):
    """The latent [C, h, w] after ``steps`` steps from ``noise``."""
    z = noise
    for step in range(steps):
        t, r = 1 - step / steps, 1 - (step + 1) / steps
        z = z - (t - r) * forward(state, config, z, control, features, t, r)
    return z


def forward(state, config, noisy, control, features, t, r):
    """Velocity [C, h, w] of one image; ``features`` [m, F], times ``t`` and ``r`` in 0 ... 1."""
    patch, width = config.patch_size, config.dim
    rows, columns = noisy.shape[1] // patch, noisy.shape[2] // patch
    latents = np.concatenate([control, noisy])
    kernel = state["x_embedder.proj.weight"].reshape(width, -1)
    tokens = np.empty((rows * columns, width))
    for row in range(rows):
        for column in range(columns):
            cut = latents[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens[row * columns + column] = kernel @ cut.reshape(-1)
    x = tokens + state["x_embedder.proj.bias"]

    times = _time(state, "t_embedder", t) + (t - r) * _time(state, "r_embedder", r)
    shared = _linear(state, "t_block.1", _silu(times)).reshape(6, width)
    centred = features - features.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    normed = normed * state["layer_norm.weight"] + state["layer_norm.bias"]
    mapped = _linear(state, "mlp_ca.fc2", _gelu(_linear(state, "mlp_ca.fc1", normed)))

    for index in range(config.depth):
        name = f"blocks.{index}"
        vectors = state[f"{name}.scale_shift_table"] + shared
        shift, scale, gate, shift_ff, scale_ff, gate_ff = vectors
        h = _rms(x, state[f"{name}.norm1.weight"]) * (1 + scale) + shift
        x = x + gate * _self_attention(state, config, f"{name}.attn", h, rows, columns)
        x = x + _cross_attention(state, config, f"{name}.cross_attn", x, mapped)
        h = _rms(x, state[f"{name}.norm2.weight"]) * (1 + scale_ff) + shift_ff
        both = _linear(state, f"{name}.mlp.w12", h)
        half = both.shape[-1] // 2
        hidden = _silu(both[:, :half]) * both[:, half:]
        x = x + gate_ff * _linear(state, f"{name}.mlp.w3", hidden)

    final = _linear(state, "final_layer.adaLN_modulation.1", _silu(times))
    x = _rms(x, state["final_layer.norm_final.weight"]) * (1 + final[width:]) + final[:width]
    patches = _linear(state, "final_layer.linear", x)
    velocity = np.empty_like(noisy)
    for row in range(rows):
        for column in range(columns):
            cut = patches[row * columns + column].reshape(patch, patch, -1)
            place = np.s_[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            velocity[place] = cut.transpose(2, 0, 1)
    return velocity


def _time(state, name, time):
    angles = [time * 10000 ** (-index / 128) for index in range(128)]
    waves = np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    return _linear(state, f"{name}.mlp.2", _silu(_linear(state, f"{name}.mlp.0", waves)))


def _self_attention(state, config, name, h, rows, columns):
    size, width = config.head_dim, config.dim
    qkv = _linear(state, f"{name}.qkv", h)
    parts = []
    for head in range(config.num_heads):
        q, k, v = (qkv[:, i * width + head * size :][:, :size] for i in range(3))
        q = _turned(_rms(q, state[f"{name}.q_norm.weight"]), config, rows, columns)
        k = _turned(_rms(k, state[f"{name}.k_norm.weight"]), config, rows, columns)
        parts.append(_softmax(q @ k.T / math.sqrt(size)) @ v)
    return _linear(state, f"{name}.proj", np.concatenate(parts, -1))


def _cross_attention(state, config, name, x, features):
    size = config.head_dim
    q_all = _linear(state, f"{name}.q_linear", x)
    k_all = _linear(state, f"{name}.k_linear", features)
    v_all = _linear(state, f"{name}.v_linear", features)
    parts = []
    for head in range(config.num_heads):
        q, k, v = (part[:, head * size :][:, :size] for part in (q_all, k_all, v_all))
        q = _rms(q, state[f"{name}.q_norm.weight"])
        k = _rms(k, state[f"{name}.k_norm.weight"])
        parts.append(_softmax(q @ k.T / math.sqrt(size)) @ v)
    return _linear(state, f"{name}.proj", np.concatenate(parts, -1))


def _turned(x, config, rows, columns):
    """Channels in pairs, the first half of a head by the row, the second by the column."""
    half = config.head_dim // 2
    trained = config.resolution // 8 // config.patch_size
    turned = x.copy()
    for token in range(rows * columns):
        row, column = divmod(token, columns)
        for start, place in ((0, row / rows * trained), (half, column / columns * trained)):
            for pair in range(half // 2):
                angle = place * 10000 ** (-2 * pair / half)
                a, b = x[token, start + 2 * pair], x[token, start + 2 * pair + 1]
                turned[token, start + 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                turned[token, start + 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _rms(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight


def _silu(x):
    return x / (1 + np.exp(-x))


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
