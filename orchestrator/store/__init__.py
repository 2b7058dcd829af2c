"""The Store: keys with revisions, in the terms of etcd."""
