"""`%llm tune`: what makes one model fast on this machine, measured and kept."""
