"""What stands between us and Lightning's Trainer: ranks, positions, batches, folders, progress."""
