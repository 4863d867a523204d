"""What things are: pure values and rules, without I/O, clock, Redis or HTTP."""
