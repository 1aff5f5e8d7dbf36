"""The page that the feed serves: plain files, loaded once at start, nothing from elsewhere. Holds no code."""
