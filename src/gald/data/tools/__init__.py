"""Commands of `gald data`; training does not import them."""
