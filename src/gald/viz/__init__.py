"""Pictures: panels of a run, and what the context slots saw and made."""
