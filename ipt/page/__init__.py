"""The page on which a person restores photographs, and the service under it; needs the extra `page`."""
