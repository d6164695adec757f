"""SPEC -> a uniform subject: `load.load(spec)`. Importing this package imports no torch; its modules may."""
