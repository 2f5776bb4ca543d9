"""The page: plain ES modules, served as they lie here."""
