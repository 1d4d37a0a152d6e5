"""Steps of a run against those of a table of modulations."""

from dataclasses import replace

import pytest

from runtime.sampling.schedule import euler_schedule
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.table_steps import check_table_steps
from schemas.errors import PackError, UsageError
from schemas.manifest import ModulationRecord

SETTINGS = UpscaleSettings(4, 1.0, 3.0, 16, 4, 32, "none")


def table(timesteps):
    return ModulationRecord(timesteps=tuple(timesteps), prompts=("0" * 64,), weights=False)


def test_a_run_takes_the_steps_that_the_table_has():
    own = euler_schedule(SETTINGS.steps, SETTINGS.shift, SETTINGS.start_sigma).timesteps.tolist()
    check_table_steps(table(own), SETTINGS)
    check_table_steps(None, replace(SETTINGS, steps=9))  # any other network takes all
    with pytest.raises(UsageError, match=r"--steps 3: .* its own 4 steps"):
        check_table_steps(table(own), replace(SETTINGS, steps=3))


def test_a_table_of_other_timesteps_is_the_packs_fault():
    with pytest.raises(PackError, match="other timesteps than those of its 4"):
        check_table_steps(table([900.0, 600.0, 500.0, 100.0]), SETTINGS)
