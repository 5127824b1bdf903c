"""Tests of cut networks: parties in network namespaces of their own, and forwarders that hold up or reset."""
