"""DiT4SR's forward pass and sampling loop a second time: numpy in float64, from the equations.

An oracle that shares no code with the runtime and none with torch. It is slow and literal: every
stream by its own name, every head in a loop, softmax and convolution written out. It computes what
a pack leaves out as well, the control keys of q and f among them, so that leaving out shows to be
right. What it follows are the published description (arXiv 2503.23580) and, for the parts that
Stable Diffusion 3.5 has too, arXiv 2403.03206.

``state`` is a checkpoint: name -> float64 array, with the published names.
"""

from itertools import pairwise

import numpy as np

EPS = 1e-6
GAIN = 1.2
TIME_CHANNELS = 256


def forward(state, config, variant, hidden_states, control, prompt_embeds, pooled, timestep):
    """Velocity [B, C, h, w] of ``hidden_states``; the images of a batch one after the other."""
    images = zip(hidden_states, control, prompt_embeds, pooled, timestep, strict=True)
    return np.stack([_one_image(state, config, variant, *image) for image in images])


def sample(state, config, variant, noise, control, positive, negative, *, steps, guidance, shift):
    """The latent [1, C, h, w] after ``steps`` Euler steps of flow matching from ``noise``.

    ``positive`` and ``negative`` are pairs of prompt tokens [1, m, J] and pooled prompt [1, P].
    The noise level falls evenly from 1 to the least the schedule has, 1/1000 after its shift; both
    are shifted (once more, the least one, as Stable Diffusion's scheduler has it), then comes 0.
    """
    least = _shifted(1 / 1000, shift)
    sigmas = [_shifted(sigma, shift) for sigma in np.linspace(1, least, steps)] + [0.0]
    latent = noise
    for sigma, following in pairwise(sigmas):
        timestep = np.array([1000 * sigma])
        wanted = forward(state, config, variant, latent, control, *positive, timestep)
        unwanted = forward(state, config, variant, latent, control, *negative, timestep)
        velocity = unwanted + guidance * (wanted - unwanted)
        latent = latent + (following - sigma) * velocity
    return latent


def _shifted(sigma, shift):
    return shift * sigma / (1 + (shift - 1) * sigma)


def _one_image(state, config, variant, noisy, control, prompt, pooled, timestep):
    patch = config.patch_size
    grid = (noisy.shape[1] // patch, noisy.shape[2] // patch)
    image = _embed_patches(state, config, noisy, grid)
    control = _embed_patches(state, config, control, grid)
    text = _linear(state, "context_embedder", prompt)

    embedded = _two_layers(state, "time_text_embed.timestep_embedder", _waves(timestep))
    embedded = embedded + _two_layers(state, "time_text_embed.text_embedder", pooled)
    condition = _silu(embedded)

    for index in range(config.num_layers):
        image, control, text = _block(
            state, config, variant, index, image, control, text, condition, grid
        )

    scale, shift = np.split(_linear(state, "norm_out.linear", condition), 2)
    out = _linear(state, "proj_out", _layer_norm(image) * (1 + scale) + shift)
    velocity = np.zeros((config.out_channels, grid[0] * patch, grid[1] * patch))
    for row in range(grid[0]):
        for column in range(grid[1]):
            values = out[row * grid[1] + column].reshape(patch, patch, config.out_channels)
            for y in range(patch):
                for x in range(patch):
                    velocity[:, row * patch + y, column * patch + x] = values[y, x]
    return velocity


def _block(state, config, variant, index, image, control, text, condition, grid):
    """The three streams after block ``index``; the last block leaves the text as it is."""
    name = f"transformer_blocks.{index}"
    dual = index in config.dual_attention_layers
    last = index == config.num_layers - 1

    parts = np.split(_linear(state, f"{name}.norm1.linear", condition), 9 if dual else 6)
    shift, scale, gate, shift_ff, scale_ff, gate_ff = parts[:6]
    of_text = np.split(_linear(state, f"{name}.norm1_context.linear", condition), 2 if last else 6)
    if last:
        scale_text, shift_text = of_text
    else:
        shift_text, scale_text, gate_text, shift_text_ff, scale_text_ff, gate_text_ff = of_text

    normed_image, normed_control = _layer_norm(image), _layer_norm(control)
    to_image, to_control, to_text = _attention(
        state,
        config,
        variant,
        f"{name}.attn",
        normed_image * (1 + scale) + shift,
        normed_control * (1 + scale) + shift,
        _layer_norm(text) * (1 + scale_text) + shift_text,
        text_asks=not last,
    )
    image, control = image + gate * to_image, control + gate * to_control
    if dual:
        shift2, scale2, gate2 = parts[6:]
        to_image, to_control, _ = _attention(
            state,
            config,
            variant,
            f"{name}.attn2",
            normed_image * (1 + scale2) + shift2,
            normed_control * (1 + scale2) + shift2,
            None,
            text_asks=False,
        )
        image, control = image + gate2 * to_image, control + gate2 * to_control

    inner_image = _gelu(
        _linear(state, f"{name}.ff.net.0.proj", _layer_norm(image) * (1 + scale_ff) + shift_ff)
    )
    inner_control = _gelu(
        _linear(state, f"{name}.ff.net.0.proj", _layer_norm(control) * (1 + scale_ff) + shift_ff)
    )
    inner_image = inner_image + GAIN * _convolved(
        inner_control,
        state[f"{name}.ff.control_conv.weight"],
        state[f"{name}.ff.control_conv.bias"],
        grid,
    )
    image = image + gate_ff * _linear(state, f"{name}.ff.net.2", inner_image)
    control = control + gate_ff * _linear(state, f"{name}.ff.net.2", inner_control)

    if not last:
        text = text + gate_text * to_text
        inner = _linear(
            state,
            f"{name}.ff_context.net.0.proj",
            _layer_norm(text) * (1 + scale_text_ff) + shift_text_ff,
        )
        text = text + gate_text_ff * _linear(state, f"{name}.ff_context.net.2", _gelu(inner))
    return image, control, text


def _attention(state, config, variant, name, image, control, text, *, text_asks):
    """What attention adds to image, control and text [tokens, C]; None where it adds nothing."""

    def linear(layer, x):
        return _linear(state, f"{name}.{layer}", x)

    def norm(layer, x):
        return _rms_norm(x, state[f"{name}.{layer}.weight"])

    queries = [linear("to_q", image), linear("to_q_control", linear("to_q", control))]
    keys = [linear("to_k", image), linear("to_k_control", linear("to_k", control))]
    values = [linear("to_v", image), linear("to_v_control", linear("to_v", control))]
    if text is not None:
        keys.append(linear("add_k_proj", text))
        values.append(linear("add_v_proj", text))
        if text_asks:
            queries.append(linear("add_q_proj", text))

    size = config.attention_head_dim
    results = []
    for head in range(config.num_attention_heads):
        of_head = slice(head * size, (head + 1) * size)
        q = [norm("norm_q", x[:, of_head]) for x in queries[:2]]
        k = [norm("norm_k", keys[0][:, of_head])]
        if variant == "r1":
            k.append(norm("norm_k", keys[1][:, of_head]))
        else:  # the published code overwrites the control keys by the image's, normed twice
            k.append(norm("norm_k", norm("norm_k", keys[0][:, of_head])))
        if text is not None:
            k.append(norm("norm_added_k", keys[2][:, of_head]))
            if text_asks:
                q.append(norm("norm_added_q", queries[2][:, of_head]))
        likeness = np.concatenate(q) @ np.concatenate(k).T / np.sqrt(size)
        weights = np.exp(likeness - likeness.max(axis=1, keepdims=True))
        weights = weights / weights.sum(axis=1, keepdims=True)
        results.append(weights @ np.concatenate([x[:, of_head] for x in values]))
    attended = np.concatenate(results, axis=1)

    n = len(image)
    to_image = linear("to_out.0", attended[:n])
    to_control = linear("to_out_control", attended[n : 2 * n] + control)
    to_text = linear("to_add_out", attended[2 * n :]) if text_asks else None
    return to_image, to_control, to_text


def _embed_patches(state, config, latent, grid):
    """One token for every patch of ``latent`` [C, h, w], plus its place: [rows * columns, hidden].

    The position table's middle is what a latent gets, one of the training size at its own scale.
    """
    patch, side, hidden = config.patch_size, config.pos_embed_max_size, config.hidden_size
    weight = state["pos_embed.proj.weight"]  # [hidden, C, patch, patch]
    tokens = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            pixels = latent[
                :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch
            ]
            y, x = (side - grid[0]) // 2 + row, (side - grid[1]) // 2 + column
            per_place = config.sample_size // patch / side
            place = [_place(x * per_place, hidden // 2), _place(y * per_place, hidden // 2)]
            token = (weight * pixels).sum(axis=(1, 2, 3)) + state["pos_embed.proj.bias"]
            tokens.append(token + np.concatenate(place))
    return np.stack(tokens)


def _place(coordinate, channels):
    """Sines, then cosines, of ``coordinate`` times 10000^(-j / (channels/2))."""
    angles = coordinate * 10000.0 ** (-np.arange(channels // 2) / (channels // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)])


def _waves(timestep):
    """Cosines, then sines, of ``timestep`` at 128 frequencies from 1 down towards 1/10000."""
    half = TIME_CHANNELS // 2
    angles = timestep * 10000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.cos(angles), np.sin(angles)])


def _convolved(tokens, weight, bias, grid):
    """Every channel's own 3x3 correlation over the tokens' ``grid``, zeros around it."""
    rows, columns = grid
    padded = np.zeros((rows + 2, columns + 2, tokens.shape[1]))
    padded[1:-1, 1:-1] = tokens.reshape(rows, columns, -1)
    result = np.zeros((rows, columns, tokens.shape[1])) + bias
    for y in range(3):
        for x in range(3):
            result += padded[y : y + rows, x : x + columns] * weight[:, 0, y, x]
    return result.reshape(rows * columns, -1)


def _two_layers(state, name, x):
    return _linear(state, f"{name}.linear_2", _silu(_linear(state, f"{name}.linear_1", x)))


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _layer_norm(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPS)


def _rms_norm(x, weight):
    return weight * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPS)


def _silu(x):
    return x / (1 + np.exp(-x))


def _gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
