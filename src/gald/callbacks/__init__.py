"""Training callbacks: progress output, progress file, newest checkpoint, images for wandb."""
