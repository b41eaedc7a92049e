"""The doors: they translate between people or programs and the library, and decide nothing."""
