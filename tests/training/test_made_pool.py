"""Samples that a network makes while another trains: the newest, in place of the oldest."""

import torch

from training.closing_states import ClosingStates
from training.crops import to_batch
from training.made_pool import MadePool
from training.pairs import encode, make_pairs
from training.sampled import TrainedNetwork


def test_a_pool_has_the_newest_samples(folder, crops, vae):
    network = TrainedNetwork.load(folder, torch.device("cpu"))
    pool = MadePool(
        ClosingStates,
        crops,
        vae,
        network,
        workers=0,
        crop_px=32,
        chunk=2,
        capacity=4,
        enough=4,
        every=3,
    )
    first = pool.newer()
    assert [pool.newer() for _ in range(2)] == [None, None]
    prompts, pictures = first.prompt.clone(), first.target.clone()
    assert len(prompts) == 4
    newer = None
    while newer is None:  # until the chunk after them lies ready
        newer = pool.newer()
    assert len(newer.prompt) == 4
    assert torch.equal(newer.target[2:], pictures[2:])
    for number in (0, 1):
        assert not (newer.target[number] == pictures).flatten(1).all(dim=1).any()
    shard = make_pairs(crops, 32, ClosingStates.first_crops + 2, 2)
    assert torch.equal(newer.target[:2], torch.from_numpy(shard[0]))
    assert newer.prompt[:2].tolist() == shard[2]
    control = encode(vae, to_batch(list(shard[1])))
    torch.testing.assert_close(newer.control[:2], control.bfloat16())
