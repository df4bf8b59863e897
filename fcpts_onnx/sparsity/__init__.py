"""LEARN: the method itself: thresholds, masks, budget and the loop of Algorithm 1."""
