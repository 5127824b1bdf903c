"""Values between parties with other releases of the packages: ``python -m tests.matrix``, or ``make test-matrix``."""
