"""What every part agrees on: pure functions over plain data, no I/O, no clock."""
