"""The pure core: state in, events in, instructions out. No IO, threads, clock or logging in this package."""
