"""What a sweep will run, how long it takes, and which differences it can detect."""
