"""What all distillation methods share: the round, roll-outs, losses, checkpoints."""
