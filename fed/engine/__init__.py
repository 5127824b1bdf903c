"""One job in one party: its threads, and what they share."""
