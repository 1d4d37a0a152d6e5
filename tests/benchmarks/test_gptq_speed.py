"""`benchmarks.gptq_speed` prints a line for every shape."""

from benchmarks import gptq_speed


def test_every_shape_is_measured(capsys):
    gptq_speed.main(["--shapes", "16x32,8x64"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["16x32", "8x64"]
    assert all("to nearest" in line and "fitted" in line for line in lines)
