"""Speed and memory against the plain loops of the field, as ratios within one run: `python -m benchmarks.<name>`."""
