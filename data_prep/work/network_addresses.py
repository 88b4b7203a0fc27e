"""Addresses of machines in a network."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return True if a host name or IP address can be reached from this machine only.

    Example:
        >>> is_loopback("localhost"), is_loopback("127.9.9.9"), is_loopback("pacs.example")
        (True, True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
