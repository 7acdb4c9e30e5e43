"""Charts: pure functions from numbers to one SVG string each; they know nothing of records."""
