"""What a run would be, before it is: size, memory, schedule, disk and time."""
