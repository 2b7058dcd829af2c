"""The rights of a process in a container: capabilities, system calls, hidden paths."""
