"""The joint report: what sharing one network costs and gains."""
