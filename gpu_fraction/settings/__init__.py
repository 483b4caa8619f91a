"""Settings of every program: flags over environment over file over defaults."""
