"""The rules of the error model, one by one, on the in-process runtime: gates instead of sleeps."""
