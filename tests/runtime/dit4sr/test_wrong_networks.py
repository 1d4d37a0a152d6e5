"""Networks with one thing wrong each, all of which the oracle must tell from the right one.

A change is a passage of the network's source and what stands in its place. A passage that is no
longer there means that the source was reworded: put the new words here.
"""

import importlib
import inspect
import sys
import types

import pytest
import torch

from tests.runtime.dit4sr.oracle import BOUNDS, Tensors, relative_error

PACKAGE = "runtime.dit4sr"
BLOCKS, NETWORK = f"{PACKAGE}.blocks", f"{PACKAGE}.network"

WRONG = {
    "control keys normed once": ("keys.append(self.norm_k(keys[0]))", "keys.append(keys[0])"),
    "control keys unnormed": (
        "keys.append(self.norm_k(keys[0]))",
        "keys.append(self._heads(k[:, :n]))",
    ),
    "control keys of r1 unnormed": (
        "self.norm_k(self._heads(project(self.to_k_control, k[:, n:], bits)))",
        "self._heads(project(self.to_k_control, k[:, n:], bits))",
    ),
    "control keys of r1 normed twice": (
        "self.norm_k(self._heads(project(self.to_k_control, k[:, n:], bits)))",
        "self.norm_k(self.norm_k(self._heads(project(self.to_k_control, k[:, n:], bits))))",
    ),
    "control keys of r1 in q": ('self.variant == "r1"', "True"),
    "control keys of q in r1": ('self.variant == "r1"', "False"),
    "control keys of r1 from the image": (
        "self.to_k_control, k[:, n:]",
        "self.to_k_control, k[:, :n]",
    ),
    "control queries without their second layer": (
        "q_control = project(self.to_q_control, q[:, n:], bits)",
        "q_control = q[:, n:]",
    ),
    "control queries from the image": (
        "self.to_q_control, q[:, n:]",
        "self.to_q_control, q[:, :n]",
    ),
    "control values without their second layer": (
        "v_control = project(self.to_v_control, v[:, n:], bits)",
        "v_control = v[:, n:]",
    ),
    "control values from the image": ("self.to_v_control, v[:, n:]", "self.to_v_control, v[:, :n]"),
    "control queries normed as keys are": (
        "queries = [self.norm_q(self._heads(x)) for x in (q[:, :n], q_control)]",
        "queries = [self.norm_q(self._heads(q[:, :n])), self.norm_k(self._heads(q_control))]",
    ),
    "text keys normed as the image's are": (
        "keys.append(self.norm_added_k(self._heads(k_text)))",
        "keys.append(self.norm_k(self._heads(k_text)))",
    ),
    "text keys unnormed": (
        "keys.append(self.norm_added_k(self._heads(k_text)))",
        "keys.append(self._heads(k_text))",
    ),
    "text queries unnormed": (
        "queries += [self.norm_added_q(self._heads(x)) for x in q_text]",
        "queries += [self._heads(x) for x in q_text]",
    ),
    "control output without its input": (
        "attended[:, n : 2 * n] + control",
        "attended[:, n : 2 * n]",
    ),
    "control output with its input subtracted": (
        "attended[:, n : 2 * n] + control",
        "attended[:, n : 2 * n] - control",
    ),
    "control output by the image's layer": (
        "project(self.to_out_control, attended",
        "project(self.to_out[0], attended",
    ),
    "image output with its input": (
        "self.to_out[0], attended[:, :n]",
        "self.to_out[0], attended[:, :n] + latent[:, :n]",
    ),
    "attention unscaled": (
        "torch.cat(queries, dim=2),",
        "torch.cat(queries, dim=2) * queries[0].shape[-1] ** 0.5,",
    ),
    "keys in another order than their values": (
        "torch.cat(keys, dim=2)",
        "torch.cat(keys[::-1], dim=2)",
    ),
    "shift and scale of attention exchanged": (
        "modulate(normed, shift, scale)",
        "modulate(normed, scale, shift)",
    ),
    "shift and scale of attention 2 exchanged": (
        "modulate(normed, shift2, scale2)",
        "modulate(normed, scale2, shift2)",
    ),
    "attention 2 on what the first gave": (
        "self.attn2(modulate(normed, shift2",
        "self.attn2(modulate(self._norm(latent), shift2",
    ),
    "attention 2 modulated as the first": (
        "modulate(normed, shift2, scale2)",
        "modulate(normed, shift, scale)",
    ),
    "attention 2 with the first's gate": ("latent, gate2[:, None]", "latent, gate[:, None]"),
    "attention 2 left out": ("if self.attn2 is not None:", "if False:"),
    "order of the nine modulations": (
        "shift, scale, gate, shift_ff, scale_ff, gate_ff, *second = own",
        "*second, shift, scale, gate, shift_ff, scale_ff, gate_ff = own",
    ),
    "shift and scale of the last text exchanged": (
        "scale_text, shift_text = context",
        "shift_text, scale_text = context",
    ),
    "shift and scale of the text exchanged": (
        "shift_text, scale_text, gate_text, shift_text_ff",
        "scale_text, shift_text, gate_text, shift_text_ff",
    ),
    "shift and scale of the feed-forward exchanged": (
        "self._norm(latent), shift_ff, scale_ff",
        "self._norm(latent), scale_ff, shift_ff",
    ),
    "gates of attention and feed-forward exchanged": (
        "latent, gate[:, None], attended.latent",
        "latent, gate_ff[:, None], attended.latent",
    ),
    "feed-forward ungated": ("gate_ff[:, None], hidden)", "torch.ones_like(hidden), hidden)"),
    "text feed-forward ungated": (
        "gate_text_ff[:, None], hidden)",
        "torch.ones_like(hidden), hidden)",
    ),
    "feed-forward's input without its norm": (
        "modulate(self._norm(latent), shift_ff",
        "modulate(latent, shift_ff",
    ),
    "exact GELU": ("project_gelu(inner_layer, x, bits)", "F.gelu(project(inner_layer, x, bits))"),
    "convolution of the image": ("on_grid = control.transpose", "on_grid = image.transpose"),
    "convolution without its gain": ("CONTROL_CONV_GAIN = 1.2", "CONTROL_CONV_GAIN = 1.0"),
    "convolution on the grid turned over": (
        "unflatten(2, grid)",
        "unflatten(2, grid[::-1])",
    ),
    "convolution without its bias": ("weight, conv.bias, padding=1", "weight, None, padding=1"),
    "convolution wrapped around": (
        "return F.conv2d(on_grid, weight, conv.bias, padding=1,",
        "return F.conv2d(F.pad(on_grid, (1, 1, 1, 1), 'circular'), weight, conv.bias,",
    ),
    "epsilon of the norms": ("NORM_EPS = 1e-6", "NORM_EPS = 1e-5"),
    "condition without its activation": (
        "return F.silu(self.time_text_embed(timestep, pooled))",
        "return self.time_text_embed(timestep, pooled)",
    ),
    "shift and scale of the output exchanged": (
        "scale, shift = vector.chunk",
        "shift, scale = vector.chunk",
    ),
    "output without its norm": ("F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), shift", "x, shift"),
    "image and control exchanged": (
        "[self.pos_embed(hidden_states), self.pos_embed(control)]",
        "[self.pos_embed(control), self.pos_embed(hidden_states)]",
    ),
    "patches turned over": ("permute(0, 5, 1, 3, 2, 4)", "permute(0, 5, 1, 4, 2, 3)"),
    "channels of a patch first": (
        "unflatten(3, (patch, patch, -1))\n        return patches.permute(0, 5, 1, 3, 2, 4)",
        "unflatten(3, (-1, patch, patch))\n        return patches.permute(0, 3, 1, 4, 2, 5)",
    ),
}


def imported(name, source):
    module = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
    return module


def network_with(monkeypatch, right, wrong):
    """The network's class with ``right`` replaced by ``wrong`` wherever it stands."""
    sources = {name: inspect.getsource(importlib.import_module(name)) for name in (BLOCKS, NETWORK)}
    assert any(right in source for source in sources.values()), "reworded?"
    for name, source in sources.items():
        module = imported(name, source.replace(right, wrong))
        monkeypatch.setitem(sys.modules, name, module)
    return module.DiT4SR


ORACLE = Tensors()


def error_of(make):
    """The larger relative error of both forward passes."""
    errors = []
    for variant in ("q", "r1"):
        with torch.inference_mode():
            out = ORACLE.network(variant, make)(*ORACLE.inputs.values())
        errors.append(relative_error(out, ORACLE.tensors[f"out.{variant}"]))
    return max(errors)


@pytest.mark.parametrize(("right", "wrong"), WRONG.values(), ids=WRONG)
def test_a_wrong_network_is_found(monkeypatch, right, wrong):
    # Exact GELU, the least of them, is at 7 times the bound, most are at 1,000 times and more.
    assert error_of(network_with(monkeypatch, right, wrong)) > 3 * BOUNDS[torch.float64]


def test_the_right_network_passes_the_same_way(monkeypatch):
    make = network_with(monkeypatch, "NORM_EPS", "NORM_EPS")
    assert error_of(make) < BOUNDS[torch.float64]
