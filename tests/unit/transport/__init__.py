"""Tests of the transport: one conformance suite for all of them, and what is particular to each."""
