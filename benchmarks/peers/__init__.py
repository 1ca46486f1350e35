"""Other engines and servers, each in a virtual environment of its own, since their requirements exclude each other."""
