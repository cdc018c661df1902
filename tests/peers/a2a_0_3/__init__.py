"""Programs of the A2A SDK 0.3, which run in an environment of their own: two releases of it do not fit into one."""
