"""What a mount that ends without nodes or log, or is killed, leaves to the next."""
