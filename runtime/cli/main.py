"""Where the command ``qrun`` begins; imports next to nothing, so that Ctrl-C is heard at once."""

from artifacts.cli.interrupts import leave_at_once_on_interrupt, tell_of_interruption
from artifacts.cli.threads import prepare_threads


def main() -> None:
    """Run ``qrun``."""
    leave_at_once_on_interrupt()
    prepare_threads()
    from runtime.cli.app import app

    try:
        app()
    except SystemExit as stop:
        tell_of_interruption(stop)
        raise


if __name__ == "__main__":
    main()
