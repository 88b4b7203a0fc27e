"""The tags, ids and links of a page that the program writes."""

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "img"}


class Outline(HTMLParser):
    """Tags of a page that are left open or closed out of order, and its ids and links."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.ids = []
        self.links = []
        self.problems = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """Note the tag, its id and its links.

        Args:
            tag: Name of the tag.
            attrs: Attributes as pairs of name and value.
        """
        facts = dict(attrs)
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts[key] for key in ("href", "src") if facts.get(key)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Note a problem if the tag does not close the last open one.

        Args:
            tag: Name of the tag.
        """
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.problems.append(tag)
