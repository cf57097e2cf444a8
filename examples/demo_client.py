"""The page from a program, by plain HTTP: retouch a photo, make its contact sheet and its colour table.

diffretouch demo --no-browser --port 7860 &
python examples/demo_client.py examples/photo.jpg

The same by hand: curl --data-binary @photo.jpg -o out.jpg 'http://127.0.0.1:7860/api/retouch?brightness=0.4&seed=7'
"""

import sys
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

photo = Path(sys.argv[1])
address = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:7860/"
key = sys.argv[3] if len(sys.argv) > 3 else None  # of a page that other computers can reach
look = {"brightness": 0.4, "temperature": 0.2, "seed": 7, "name": photo.name}

for route, values in (("retouch", look), ("sweep", {"name": photo.name}), ("lut", look)):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = Request(f"{address.rstrip('/')}/api/{route}?{urlencode(values)}", photo.read_bytes(), headers)
    with urlopen(request) as answer:
        name = answer.headers["Content-Disposition"].partition("''")[2]
        Path(name).write_bytes(answer.read())
    print(name)
