"""The DNS server that containers see at 127.0.0.11."""
