"""Tests of whole federations: real processes, real Ray, real gRPC and mutual TLS."""
