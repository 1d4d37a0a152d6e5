"""Whether a network that has nothing but its table of modulations can take the steps of a run."""

from runtime.network.modulation import STEP_TOLERANCE
from runtime.sampling.schedule import euler_schedule
from runtime.sampling.settings import UpscaleSettings
from schemas.errors import PackError, UsageError
from schemas.manifest import Manifest, ModulationRecord


def table_alone(manifest: Manifest, *, with_source: bool) -> ModulationRecord | None:
    """What the table of a pack holds, where nothing else gives modulations; else None.

    Args:
        manifest: of the pack.
        with_source: whether the layers come from the pack's source.
    """
    record = manifest.modulation
    return None if record is None or record.weights or with_source else record


def check_table_steps(table: ModulationRecord | None, settings: UpscaleSettings) -> None:
    """Make sure that a table has every timestep that a run visits.

    Args:
        table: of a network without modulation layers; None for any other network.
        settings: of the run.

    Raises:
        UsageError: it lacks one.
        PackError: it is for as many steps, but not for these.
    """
    if table is None:
        return
    scheduler = euler_schedule(settings.steps, settings.shift, settings.start_sigma)
    known = table.timesteps
    for timestep in scheduler.timesteps.tolist():
        if min(abs(timestep - step) for step in known) > STEP_TOLERANCE:
            if settings.steps == len(known):
                raise PackError(
                    f"the pack has modulations for other timesteps than those of its {len(known)}"
                    " steps"
                )
            raise UsageError(
                f"--steps {settings.steps}: the pack has modulations for its own {len(known)} steps"
                " alone",
                hint="leave --steps out, or give --checkpoint with the pack's source",
            )
