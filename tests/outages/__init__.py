"""What clients lose while tasks are restarted, replaced, scaled down and drained."""
