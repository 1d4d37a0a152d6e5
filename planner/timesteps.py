"""The timesteps that a sampler with a given number of steps visits."""


def sampling_timesteps(steps: int, shift: float) -> tuple[float, ...]:
    """Timesteps of the flow-matching Euler scheduler, descending from 1000.

    diffusers' own scheduler is asked, so that planner and runtime cannot drift apart.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: PLC0415  (seconds to import)

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return tuple(scheduler.timesteps.tolist())
