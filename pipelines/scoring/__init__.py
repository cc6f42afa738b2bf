"""How good a model is: on held-out tiles and real pairs, in seconds, as one scorecard."""
