"""`gald data import`: from polygons to masks; training does not import it."""
