"""From runs to the table: what to decompose, the workers that do it, and the rows."""
