"""The way in: hosts and paths of stacks, answered on the cluster's nodes by Caddy, with certificates.

`pystack ingress up` runs Caddy as a system stack. `routes` and `caddy` make its configuration of what the cluster is, pure;
`controller` gives it to each proxy by Caddy's own API; `certificates` has what TLS needs.
"""
