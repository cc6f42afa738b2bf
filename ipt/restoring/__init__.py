"""From a picture, or many, to the restored ones."""
