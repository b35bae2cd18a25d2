"""Statistics of the tables: what figures draw of them, and whether two series move together."""
