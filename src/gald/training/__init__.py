"""`gald train`: one training, from its config to its run folder."""
