"""The page in the browser: `server.serving` starts it; everything else here is what it is made of."""
