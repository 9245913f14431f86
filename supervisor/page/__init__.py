"""The page of the web process: what is wrong in words, numbers as charts, and buttons. It knows the fleet through a Desk."""
