"""Pure functions over outputs: what differs, what is volatile, which rule it breaks; never any I/O."""
