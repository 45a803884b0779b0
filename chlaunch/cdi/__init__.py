"""Devices and host libraries the standard way: the Container Device Interface, CNCF's specification.

``document`` reads a file within limits, ``spec`` checks it, ``resolve`` finds what was asked for, ``hooks``
says what a vendor's hook would do, and ``render`` turns all of it into ch-run's plain options. Nothing that a
file names is ever executed. https://github.com/cncf-tags/container-device-interface
"""
