"""Tables of models and of what they say. pandas is imported inside functions only."""
