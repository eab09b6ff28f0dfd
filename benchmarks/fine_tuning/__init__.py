"""What fine-tuning as an ensemble gains over one fine-tuned network."""
