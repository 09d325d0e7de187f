"""What happens beside training: progress, checkpoints, metrics.csv, pictures, wandb."""
