"""Bytes between parties: the contract, gRPC with mutual TLS, and an in-process twin for tests."""
