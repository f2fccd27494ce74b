"""A page as a form: fields from the parameters cell, the work in a process of its own."""
