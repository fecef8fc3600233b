"""What several processes of one run agree on."""
