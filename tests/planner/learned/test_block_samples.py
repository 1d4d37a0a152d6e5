"""What a block is fed and should return, with as little of the network run as that takes."""

import torch
from torch import nn

from planner.learned.block_samples import block_output, block_sample


class Block(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.calls = factor, 0

    def forward(self, x, *, shift):
        self.calls += 1
        return self.factor * x + shift, "no tensor"


class Network(nn.Module):
    def __init__(self, *factors):
        super().__init__()
        self.blocks = nn.ModuleList(Block(factor) for factor in factors)

    def forward(self, x):
        for block in self.blocks:
            x, _ = block(x, shift=1.0)
        return x


def test_a_sample_has_the_quantized_input_and_the_unquantized_output():
    quantized, unquantized = Network(2.0, 3.0, 5.0), Network(2.5, 3.5, 5.5)
    x = torch.ones(2, requires_grad=True)
    sample = block_sample(
        quantized.blocks[1],
        lambda: quantized(x),
        unquantized.blocks[1],
        lambda: unquantized(x),
    )
    assert torch.equal(sample.arguments[0], torch.full((2,), 3.0))
    assert not sample.arguments[0].requires_grad
    assert sample.keywords == {"shift": 1.0}
    assert [float(tensor[0]) for tensor in sample.wanted] == [3.5 * 3.5 + 1]
    assert [block.calls for block in quantized.blocks] == [1, 0, 0]
    assert [block.calls for block in unquantized.blocks] == [1, 1, 0]


def test_a_whole_pass_gives_both():
    network = Network(2.0, 3.0)
    found, result = block_output(network.blocks[0], lambda: network(torch.ones(1)), whole=True)
    assert [float(tensor) for tensor in found] == [3]
    assert float(result) == 10
    found, result = block_output(network.blocks[0], lambda: network(torch.ones(1)), whole=False)
    assert result is None
    assert not network.blocks[0]._forward_hooks
