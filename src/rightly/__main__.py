"""``python -m rightly``."""

from rightly.cli import main

if __name__ == "__main__":
    main()
