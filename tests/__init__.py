"""Tests of the federated task framework."""
