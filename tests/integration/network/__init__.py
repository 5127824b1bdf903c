"""The tools that cut and slow down networks, by themselves."""
