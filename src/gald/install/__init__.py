"""How this gald was installed, and what can be added to it."""
