"""The command line: a LightningCLI with a ``poison`` section, shipped configs and errors of one line."""
