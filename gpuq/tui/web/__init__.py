"""`gpuq top --web`: the same screen in a browser, to look at.

- `gate.py` says who is let in, and knows nothing of HTTP servers.
- `session.py` is one `gpuq top --readonly` behind one open page, which draws to `driver.py`.
- `site.py` joins them to a server on 127.0.0.1, and is what is started.

textual-serve carries the bytes. Its own server is not used: it answers whoever reaches the port, and
its page loads a font from the internet.
"""
