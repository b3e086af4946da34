"""The command line: parse, one call, print; errors become one message, one advice and one exit code."""
