"""Everything that one does with a trained network: predict, submit, serve."""
