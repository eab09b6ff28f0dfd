"""What each command does, without the command line: from files to files."""
