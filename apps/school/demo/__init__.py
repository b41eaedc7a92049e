"""`make demo`: the main job, walked against the running school as its users would."""
