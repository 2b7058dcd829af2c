"""The Store on etcd, version 3.4 or later: several members, any of which may fail.

Each call has a deadline and tries the members in turn (`client.py`). One server leads (`leadership.py`); only it writes, and
each write carries a fence (`transactions.py`). Source: etcd API reference; Jepsen's report on etcd 3.4.3.
"""
