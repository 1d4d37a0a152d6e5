"""The timesteps that a model's sampler visits."""

from schemas.manifest import CalibrationRecord, SamplingDefaults


def sampling_timesteps(sampling: SamplingDefaults | CalibrationRecord) -> tuple[float, ...]:
    """Timesteps of the flow-matching Euler scheduler, descending.

    The runtime's own schedule is asked, so that planner and runtime cannot drift apart.
    """
    from runtime.sampling.schedule import euler_schedule  # noqa: PLC0415  (seconds to import)

    scheduler = euler_schedule(sampling.steps, sampling.shift, sampling.start_sigma)
    return tuple(scheduler.timesteps.tolist())
