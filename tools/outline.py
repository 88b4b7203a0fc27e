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
        facts = dict(attrs)
        self.ids += [facts["id"]] if "id" in facts else []
        self.links += [facts[key] for key in ("href", "src") if facts.get(key)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.problems.append(tag)
