"""Tests of the threads of a job, without a job around them."""
