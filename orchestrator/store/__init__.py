"""The Store: keys with revisions, in etcd terms."""
