"""Benchmarks: each workload beside its limit, in the same run (``python -m benchmarks --help``)."""
