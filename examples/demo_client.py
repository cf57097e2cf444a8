"""The page's endpoints from a program: retouch a photo, make its contact sheet and its colour table.

diffretouch demo --no-browser --port 7860 &
python examples/demo_client.py examples/photo.jpg
"""

import shutil
import sys

from gradio_client import Client, handle_file

photo = sys.argv[1]
address = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:7860/"
client = Client(address, verbose=False)

retouched = client.predict(photo=handle_file(photo), brightness=0.4, temperature=0.2, seed=7, api_name="/retouch")
sheet = client.predict(photo=handle_file(photo), api_name="/sweep")
table = client.predict(photo=handle_file(photo), brightness=0.4, temperature=0.2, seed=7, api_name="/lut")

for result in (retouched, sheet, table):  # the client has put them into a temporary folder
    print(shutil.copy(result, "."))
