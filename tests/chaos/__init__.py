"""A bounded run of real processes under a seeded plan of kills, stops, cuts and outages, and a checker of what came of it."""
