"""Tables of ratios, each measured in one run."""
