"""The project's own subcommands, one file each."""
