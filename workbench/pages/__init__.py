"""What each notebook asks for, does and shows: one page each."""
