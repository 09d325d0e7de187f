"""GA and LD inside a network that somebody else wrote, without a change to its code."""
