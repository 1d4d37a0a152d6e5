import sys

from benchmarks.waiting_threads import main


def test_every_number_of_turns_is_measured_idle_and_beside_work(capsys):
    script = "import os; assert os.environ['GOMP_SPINCOUNT'] in ('5', '7')"
    main(["--busy", "0,1", "--spins", "5,7", "--rounds", "1", "--", sys.executable, "-c", script])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"beside {busy} busy, {spins} turns" for busy in (0, 1) for spins in (5, 7)
    ]
