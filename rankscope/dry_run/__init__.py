"""What a training would cost in time, memory and disk, before it starts."""
