"""The screen. Data flows down, messages up: the feed tells the app what the daemon says, the picture
holds it, widgets draw what they are shown; keys become deeds, which the client does.

- `data/` knows what is shown and in which order, and touches neither a terminal nor Textual.
- `widgets/` draw lines.
- `screens/` put them together, and dialogs on top.

It speaks with the daemon through the Client alone, and in the words of the command line.
"""
