"""The parts of ``AdversarialAccuracy``."""
