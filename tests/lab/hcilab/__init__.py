"""The lab: a whole site (two nodes, a witness) as namespaces of one Linux machine."""
