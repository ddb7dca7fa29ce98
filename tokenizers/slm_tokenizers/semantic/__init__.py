"""Self-supervised encoders, how they are pre-trained, and the discrete units that are made of what they hear."""
