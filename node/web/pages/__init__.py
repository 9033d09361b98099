"""Pages for people: Jinja2 templates, and htmx to keep them live; everything they load comes from this node."""
