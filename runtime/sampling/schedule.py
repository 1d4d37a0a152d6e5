"""The noise levels that a sampler visits.

Flow matching goes from pure noise, sigma = 1, to the image, sigma = 0. A network may have been
trained to begin later, from the control latent under some noise, as one-step networks are
(QArtSR, arXiv 2503.05584, calls it timestep retraining).
"""

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler


def euler_schedule(
    steps: int, shift: float, start_sigma: float = 1.0
) -> FlowMatchEulerDiscreteScheduler:
    """Diffusers' Euler scheduler, its timesteps and sigmas set.

    Args:
        steps: Euler steps, at least 1.
        shift: of the schedule, above 0: sigma = shift u / (1 + (shift - 1) u).
        start_sigma: the first sigma, above 0. With 1 the steps are those that diffusers takes;
            below, they are spaced alike from the u that has this sigma.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    if start_sigma == 1:
        scheduler.set_timesteps(steps)
        return scheduler
    first = start_sigma / (shift - (shift - 1) * start_sigma)
    last = min(first, scheduler.sigma_min)
    scheduler.set_timesteps(sigmas=np.linspace(first, last, steps).tolist())
    return scheduler
