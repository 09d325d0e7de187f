"""What `gald data` does; training imports none of it."""
