"""What a stage is told besides its stream: whose voice, which phone is due."""
