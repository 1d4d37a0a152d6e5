"""Where the command ``qplan`` begins; imports next to nothing, so that Ctrl-C is heard at once."""

from artifacts.cli.interrupts import leave_at_once_on_interrupt, tell_of_interruption
from artifacts.cli.threads import prepare_threads
from planner.cli.allocator import keep_freed_memory


def main() -> None:
    """Run ``qplan``."""
    leave_at_once_on_interrupt()
    keep_freed_memory()
    prepare_threads()
    from planner.cli.app import app

    try:
        app()
    except SystemExit as stop:
        tell_of_interruption(stop)
        raise


if __name__ == "__main__":
    main()
