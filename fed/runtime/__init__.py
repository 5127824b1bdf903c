"""Where tasks run: the contract, Ray, and an in-process twin for tests and for the debugger."""
