"""The jobs that a command runs: train without and with a prior, compare, explain, reproduce. May use every room."""
