"""What a process in a container may do: capabilities, system calls, hidden paths."""
