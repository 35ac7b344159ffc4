"""`make fuzz`: inputs that nobody would write, by the hundred thousand, and what must hold for each of them."""
