"""The command line: thin and lazy."""


def main() -> None:
    """Run a command; a user's mistake ends in one clear message and exit code 2, never in a traceback."""
    import sys

    from rightly.cli.app import app
    from rightly.core.errors import RightlyError

    try:
        app()
    except RightlyError as error:
        sys.stderr.write(f"rightly: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        resumable = sys.argv[1:2] and sys.argv[1] in ("fit", "sweep", "demo", "reproduce")
        hint = "; the same command with --resume goes on from here" if resumable else ""
        sys.stderr.write(f"\nrightly: stopped{hint}\n")
        raise SystemExit(130) from None
