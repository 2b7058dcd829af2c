"""The fault matrix: what fails × what is being done, on a real lab; `make faults` writes it to docs/reliability.md."""
