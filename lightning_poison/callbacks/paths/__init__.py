"""The parts of ``AdversarialPaths``."""
