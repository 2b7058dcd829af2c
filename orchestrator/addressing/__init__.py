"""Pools, subnets and addresses, decided once by the plan."""
