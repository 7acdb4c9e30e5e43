"""Speed and memory: engines against a plain step, against the floor, and against peers. See docs/benchmarks.md."""
