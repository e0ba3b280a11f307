"""What a serving process is and has: signals, CPUs, memory, descriptors, the state of its life and of its threads."""
