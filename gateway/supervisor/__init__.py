"""Several gateway processes as one: starts and watches the workers, and speaks for them."""
