"""Ray-traced stand-ins: rooms and streets rendered by Mitsuba, written in the official file formats."""
