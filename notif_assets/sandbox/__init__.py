"""What stands in for a platform on this machine: a broker, traffic, and the demo that runs it all."""
