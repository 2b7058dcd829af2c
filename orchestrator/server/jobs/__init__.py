"""Work that ends: runs of jobs, of schedules and of hooks. Any server that leads goes on with what the store has of them."""
