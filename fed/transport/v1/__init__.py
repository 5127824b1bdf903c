"""Code generated from `proto/fed/v1/fed.proto` by `proto/generate.py`. Not edited by hand."""
