"""The sections of the page, each a function from the record (and figures) to a Section, or None without content."""
