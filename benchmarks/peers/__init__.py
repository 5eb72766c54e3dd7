"""Other servers of the same model, to compare with: LitServe and MLServer.

They have an environment of their own, `.venv-peers`, which `make peers` makes; nothing here is
imported from it. Each is tried as its own documentation recommends for many small requests on a
CPU, and the fastest for the number of connections is the one that is compared with.
"""
