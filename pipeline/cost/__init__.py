"""What a frame should cost on cards that were not at hand: counted work, stated efficiency.

``python -m pipeline.cost > docs/cost-model.md`` writes the estimate down.
"""
