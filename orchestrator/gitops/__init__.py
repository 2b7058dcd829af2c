"""A git repository as the truth of a cluster: followed, planned, applied, and taken back where a commit is no good."""
