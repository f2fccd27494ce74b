"""A page as a form: fields from its model, the work in a process of its own."""
