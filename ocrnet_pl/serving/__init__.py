"""Networks behind an address: a server of predictions, and a page to try them on."""
