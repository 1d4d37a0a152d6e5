"""Where the command ``qplan`` begins; imports next to nothing, so that Ctrl-C is heard at once."""

from artifacts.cli.interrupts import leave_at_once_on_interrupt


def main() -> None:
    """Run ``qplan``."""
    leave_at_once_on_interrupt()
    from planner.cli.app import app

    app()


if __name__ == "__main__":
    main()
