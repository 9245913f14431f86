"""The guide's application: a Flask backend, its four services and what starts them."""
