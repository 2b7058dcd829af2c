"""docker-py's kinds of use as small programs, run beside Docker's own daemon: what each sees must be equal."""
