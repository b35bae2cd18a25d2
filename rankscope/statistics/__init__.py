"""Statistics over the tables: what figures draw of them, and whether two of them move together."""
