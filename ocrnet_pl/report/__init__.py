"""The joint report: what sharing one network costs and earns."""
