"""One suite of tests per port; every driver, and every fake, runs it."""
