"""Whether a candidate is nowhere worse than the champion."""
