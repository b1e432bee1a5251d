"""What goes over the wire, typed, with an example for each."""
