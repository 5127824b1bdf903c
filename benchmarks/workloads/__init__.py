"""A module per workload: what runs in the parties, what runs at the limit, and what is compared."""
