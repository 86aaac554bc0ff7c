"""A page in the browser to look at forecasts: what it asks for, the server that answers, and the page itself."""
