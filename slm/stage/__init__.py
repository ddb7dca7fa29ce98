"""Stages: what is trained and what speaks. `loss(batch) -> {name: scalar}`, `run(...)` -> what comes next."""
