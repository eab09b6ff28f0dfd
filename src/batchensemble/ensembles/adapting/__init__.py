"""Fine-tuning as an ensemble: a pretrained network whose members differ by what is trained."""
