"""What block tests and the bench share: a storage daemon that stands alone, and the load client."""
