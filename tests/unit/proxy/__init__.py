"""Tests of the two proxies, without a runtime around them."""
