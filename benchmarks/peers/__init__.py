"""What other libraries make of the same networks: docs/peers.md."""
